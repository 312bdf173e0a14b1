"""The instrument's noise against the figures that were measured on real files, and the raster against plain sums."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stm_models.errors import InputError
from stm_models.physics.instrument import Instrument, blur, measure, scan_noise, shear
from stm_models.physics.raster import form_factor, rasterise

QUIET = {
    "noise": (0.0, 0.0), "row_offset": (0.0, 0.0), "shear": (0.0, 0.0), "spikes": (0.0, 0.0),
    "blur_probability": 0.0, "change_probability": 0.0,
}  # fmt: skip


def _only(**ranges):
    return Instrument(**{**QUIET, **ranges})


def _lattice(shape=(3, 64, 64)):
    """Waves of a fifth of the mean: the contrast of real maps."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    waves = np.sin(2 * np.pi * x * 8 / shape[2]) * np.sin(2 * np.pi * y * 8 / shape[1])
    return (1 + 0.4 * waves)[None] * np.array([1.0, 2.0, 0.5])[: shape[0], None, None]


def _many(instrument, count=60, maps=None):
    maps = _lattice() if maps is None else maps
    return np.stack([measure(maps, 0.1, instrument, np.random.default_rng([7, n])) for n in range(count)])


def test_nothing_happens_without_noise():
    np.testing.assert_allclose(_many(_only(), 2)[1], _lattice(), atol=1e-12)


def test_noise_is_a_share_of_the_local_signal():
    maps = _lattice()
    relative = (_many(_only(noise=Instrument().noise)) - maps) / maps
    strength = relative.std(axis=(2, 3))
    assert 0.085 < strength.min() < 0.10  # measured: 9-14 % of the local signal
    assert 0.13 < strength.max() < 0.15
    # Bright and dim pixels alike.
    bright = maps[0] > np.median(maps[0])
    assert relative[:, 0, bright].std() == pytest.approx(relative[:, 0, ~bright].std(), rel=0.03)


def test_noise_is_correlated_across_biases():
    noise = scan_noise((3, 64, 64), 0.9, Instrument().correlation, np.random.default_rng(0)).reshape(3, -1)
    assert np.corrcoef(noise)[np.triu_indices(3, 1)] == pytest.approx([0.5] * 3, abs=0.06)
    relative = (_many(_only(noise=(0.115, 0.115))) - _lattice()) / _lattice()
    # Measured on bias differences: 4-9 % of the mean per map.
    assert 0.04 < (relative[:, 0] - relative[:, 1]).std() / math.sqrt(2) < 0.09


def test_power_falls_as_measured_in_scan_order():
    """Slope -0.8 to -1.0 of the power spectrum of forward minus backward lines."""
    slopes = []
    for n in range(12):
        rng = np.random.default_rng(n)
        line = scan_noise((1, 128, 128), rng.uniform(*Instrument().slope), 0.5, rng).ravel()
        power, frequency = np.abs(np.fft.rfft(line)[1:-1]) ** 2, np.fft.rfftfreq(line.size)[1:-1]
        fast = frequency >= 1 / 128
        bins = np.geomspace(1 / 128, 0.5, 12)
        which = np.digitize(frequency[fast], bins[1:-1])
        means = [power[fast][which == b].mean() for b in range(11)]
        middles = [frequency[fast][which == b].mean() for b in range(11)]
        slopes.append(np.polyfit(np.log(middles), np.log(means), 1)[0])
        assert power[~fast].max() < 1e-12 * power.max()
    assert np.mean(slopes) == pytest.approx(-0.9, abs=0.05)
    assert -1.15 < min(slopes) < max(slopes) < -0.65


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(8, 40), st.integers(8, 40), st.floats(0, 2), st.floats(0, 1), st.integers(0, 99))
def test_scan_noise_has_unit_variance_and_no_mean(biases, rows, columns, slope, correlation, seed):
    rng = np.random.default_rng(seed)
    noise = np.concatenate([scan_noise((biases, rows, columns), slope, correlation, rng) for _ in range(8)])
    assert noise.shape == (8 * biases, rows, columns)
    assert np.abs(noise.mean(axis=(1, 2))).max() < 1e-10
    assert noise.var() == pytest.approx(1, abs=0.75)  # few modes carry a steep spectrum of a small map


def test_row_offsets_have_the_measured_share_of_the_maps_spread():
    maps = _lattice()
    offsets = _many(_only(row_offset=Instrument().row_offset)) - maps
    assert np.ptp(offsets, axis=3).max() < 1e-12
    share = offsets[..., 0].std(axis=2) / maps.std(axis=(1, 2))
    assert 0.08 < share.min() < 0.11
    assert 0.15 < share.max() < 0.20  # 64 rows estimate a share to 9 %
    assert share.mean() == pytest.approx(0.135, abs=0.008)
    correlations = [np.corrcoef(one[:, :, 0])[0, 1] for one in offsets]
    assert np.mean(correlations) == pytest.approx(0.5, abs=0.05)
    # With everything on, the rows' means still stray by no more than that: the noise adds no slow part.
    rows = (_many(Instrument(shear=(0, 0), spikes=(0, 0), blur_probability=0, change_probability=0)) - maps).mean(3)
    assert (rows.std(axis=2) / maps.std(axis=(1, 2))).mean() < 0.2


def test_only_pixels_that_count_set_the_strength_of_offsets():
    maps = np.zeros((1, 64, 64))
    maps[:, 16:48, 16:48] = _lattice((1, 32, 32))
    inside = maps[0] > 0
    instrument = _only(row_offset=(0.1, 0.1))
    wide, narrow = (
        measure(maps, 0.1, instrument, np.random.default_rng(0), where=where) - maps for where in (None, inside)
    )
    assert narrow.std() / wide.std() == pytest.approx(maps[0][inside].std() / maps.std(), rel=1e-9)


def test_spikes_are_few_and_high():
    maps = _lattice()
    change = np.abs(_many(_only(spikes=Instrument().spikes)) - maps) / maps.std(axis=(1, 2))[:, None, None]
    hit = change > 1e-9
    assert 0 < hit.mean(axis=(1, 2, 3)).max() <= 1e-3
    assert hit.mean() == pytest.approx(4e-4, rel=0.3)
    assert 6 <= change[hit].min() < change[hit].max() <= 10


def test_shear_moves_rows_against_each_other():
    x, y = np.mgrid[:32, :48][::-1]
    maps = (3 + np.sin(2 * np.pi * 5 * x / 48 + 0.3))[None]
    moved = shear(maps, 1.7)
    shift = 1.7 * (y / 31 - 0.5)
    np.testing.assert_allclose(moved[0], 3 + np.sin(2 * np.pi * 5 * (x - shift) / 48 + 0.3), atol=1e-12)
    np.testing.assert_allclose(shear(maps, 0.0), maps, atol=1e-12)
    drift = _many(_only(shear=(2.0, 2.0)), 20, maps)
    ends = {round(float(np.abs(one[0, 0] - shear(maps, s)[0, 0]).max()), 9) for one in drift for s in (2.0, -2.0)}
    assert min(ends) == 0
    assert len(ends) == 2  # to either side


def test_tip_blur_against_scipy():
    maps = np.random.default_rng(0).random((2, 24, 30))
    expected = np.stack([ndimage.gaussian_filter(m, (2.0, 2.6), mode="wrap", truncate=8) for m in maps])
    np.testing.assert_allclose(blur(maps, 0.05, (0.13, 0.1), 0.0), expected, atol=1e-6)
    turned = blur(maps, 0.05, (0.1, 0.13), math.pi / 2)
    np.testing.assert_allclose(turned, blur(maps, 0.05, (0.13, 0.1), 0.0), atol=1e-12)


def test_a_tip_may_change_once_in_the_order_of_the_scan():
    maps = np.ones((1, 16, 16)) + 1e-6 * np.random.default_rng(0).random((1, 16, 16))
    ratio = (_many(_only(change_probability=1.0), 40, maps) / maps)[:, 0].reshape(40, -1)
    assert (np.count_nonzero(np.abs(np.diff(ratio, axis=1)) > 1e-9, axis=1) <= 1).all()
    assert np.allclose(ratio[:, 0][ratio[:, 0] != ratio[:, -1]], 1)
    assert ratio.min() > 0.85 - 1e-9
    assert ratio.max() < 1.15 + 1e-9
    met = [np.ptp(one / maps) > 1e-9 for one in _many(_only(change_probability=0.3), 200, maps)]
    assert np.mean(met) == pytest.approx(0.3, abs=0.1)


def test_the_generator_alone_decides():
    first, second, other = (measure(_lattice(), 0.1, Instrument(), np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("maps", "pixel"), [(np.ones((8, 8)), 0.1), (np.ones((1, 7, 9)), 0.1), (np.full((1, 9, 9), np.nan), 0.1),
                        (np.ones((1, 9, 9)), 0.0)],
)  # fmt: skip
def test_maps_that_no_instrument_gives(maps, pixel):
    with pytest.raises(InputError, match=r"expected \(bias, y, x\), at least 8 x 8, finite"):
        measure(maps, pixel, Instrument(), np.random.default_rng(0))


@pytest.mark.parametrize("pixels", [40, 41])
def test_raster_against_the_sum_of_gaussians(pixels):
    rng = np.random.default_rng(0)
    points, values = rng.uniform(-1.5, 1.5, (20, 2)), rng.uniform(0.5, 1, (2, 20))
    centres = (np.arange(pixels) + 0.5) * 10 / pixels - 5
    distance = (centres[None, :, None] - points[:, 1, None, None]) ** 2 + (centres - points[:, :1, None]) ** 2
    expected = np.einsum("mp,pyx->myx", values, np.exp(-distance / (2 * 0.5**2)) / (2 * np.pi * 0.5**2))
    found = rasterise(points, values, side=10, pixels=pixels, width=0.5)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_raster_carries_what_its_pixels_can_and_folds_nothing_back():
    """Its Fourier sum is that of the points times the form factor, even for atoms narrower than a pixel."""
    points = np.array([[0.31, -0.72], [1.4, 0.9]])
    raster = rasterise(points, np.ones((1, 2)), side=8, pixels=16, width=0.1)[0]
    centres = (np.arange(16) + 0.5) / 2 - 4
    k = 2 * np.pi / 8 * np.arange(-7, 8)
    phases = np.exp(-1j * np.outer(k, centres)) * 0.5
    found = phases @ raster @ phases.T
    x, y = points.T
    expected = (np.exp(-1j * np.outer(k, y)) @ np.exp(-1j * np.outer(x, k))) * form_factor(k, k, 0.1)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_points_off_the_raster_and_impossible_rasters():
    outside = rasterise(np.array([[0.0, 9.0]]), np.ones((1, 1)), side=10, pixels=8, width=1)
    assert np.abs(outside).max() == 0
    for wrong in ({"pixels": 1}, {"pixels": 10_000}, {"side": 0.0}, {"width": math.nan}):
        with pytest.raises(InputError, match="expected"):
            rasterise(np.zeros((1, 2)), np.ones((1, 1)), **{"side": 10, "pixels": 8, "width": 1, **wrong})
