"""Instrument effects: variance, spectrum, direction."""

import numpy as np
import pytest

from stm_models.physics.surface import noise

SHAPE = (40, 64, 64)


def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    "values",
    [
        noise.one_over_f(generator(), SHAPE),
        noise.one_over_f(generator(), SHAPE, power=2.0, axis=-2),
        noise.blurred_white(generator(), SHAPE, 0.7),
        np.broadcast_to(noise.line_offsets(generator(), SHAPE), SHAPE),
    ],
    ids=["1/f", "1/f² across", "blurred", "lines"],
)
def test_unit_variance(values):
    assert values.shape == SHAPE
    assert values.std() == pytest.approx(1, rel=0.03)
    assert abs(values.mean()) < 0.06


@pytest.mark.parametrize("length", [63, 64])
@pytest.mark.parametrize(("power", "axis"), [(1.0, -1), (2.0, -2)])
def test_spectrum_follows_the_power_along_its_axis_alone(power, axis, length):
    values = noise.one_over_f(generator(), (60, length, length), power, axis)
    density = (np.abs(np.fft.rfft(values, axis=axis)) ** 2).mean(axis=(0, -3 - axis))[1 : length // 2]
    slope = np.polyfit(np.log(np.arange(1, length // 2)), np.log(density), 1)[0]
    assert slope == pytest.approx(-power, abs=0.05)
    other = np.moveaxis(values, axis, -1)
    neighbours = np.corrcoef(other[:, 1:].ravel(), other[:, :-1].ravel())[0, 1]
    along = np.corrcoef(other[..., 1:].ravel(), other[..., :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.03
    assert along > 0.4


def test_line_offsets_are_constant_along_the_fast_axis():
    assert noise.line_offsets(generator(), (3, 5, 7)).shape == (3, 5, 1)


def test_blurred_noise_is_correlated_and_each_map_alone():
    values = noise.blurred_white(generator(), SHAPE, 0.7)
    assert np.corrcoef(values[:, 1:].ravel(), values[:, :-1].ravel())[0, 1] == pytest.approx(
        np.exp(-1 / (4 * 0.7**2)), abs=0.05
    )
    assert abs(np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]) < 0.02


def test_tip_keeps_a_constant_and_widens_a_point():
    maps = np.ones((2, 15, 15))
    maps[1] = 0
    maps[1, 7, 7] = 1
    seen = noise.blur(maps, 0.8)
    np.testing.assert_allclose(seen[0], 1)
    y, x = np.mgrid[:15, :15] - 7
    assert (seen[1] * (x**2 + y**2)).sum() / 2 == pytest.approx(0.8**2, rel=0.02)


def test_drift_is_steady_and_zero_in_the_middle():
    path = noise.drift(generator(), 9, 0.35)
    np.testing.assert_allclose(path[4], 0)
    np.testing.assert_allclose(np.diff(path, 2, axis=0), 0, atol=1e-15)
    lengths = [np.linalg.norm(np.subtract(*noise.drift(np.random.default_rng(s), 5, 0.35)[[0, -1]])) for s in range(99)]
    assert 0.245 <= min(lengths) < 0.27 < 0.43 < max(lengths) <= 0.455
    np.testing.assert_array_equal(noise.drift(generator(), 1, 1.0), 0)


def test_stripes_plane_and_set_point_have_their_strengths():
    striped = noise.stripes(generator(), 256, 13.44, 0.03)
    assert striped.std() == pytest.approx(0.03 / np.sqrt(2), rel=0.02)
    power = np.abs(np.fft.fft2(striped - striped.mean())) ** 2
    y, x = np.unravel_index(power.argmax(), power.shape)
    assert np.hypot(np.fft.fftfreq(256)[y], np.fft.fftfreq(256)[x]) == pytest.approx(1 / 13.44, abs=1 / 256)
    tilted = noise.plane(generator(), 41, 0.08)
    assert tilted[20, 20] == pytest.approx(0)
    assert np.hypot(*(g.mean() for g in np.gradient(tilted))) * 40 == pytest.approx(0.08)
    factor = noise.set_point(generator(), 256, 0.04, 6.0)
    assert factor.mean() == pytest.approx(1, abs=0.01)
    assert factor.std() == pytest.approx(0.04, rel=0.1)
    assert np.abs(np.diff(factor, axis=0)).max() < 0.03


def test_randomness_comes_from_the_generator_alone():
    for make in (
        lambda rng: noise.one_over_f(rng, (2, 8, 8)),
        lambda rng: noise.blurred_white(rng, (2, 8, 8), 0.7),
        lambda rng: noise.stripes(rng, 8, 5.0, 0.1),
        lambda rng: noise.set_point(rng, 8, 0.1, 2.0),
    ):
        np.testing.assert_array_equal(make(generator()), make(generator()))
        assert not np.array_equal(make(generator()), make(np.random.default_rng(1)))
