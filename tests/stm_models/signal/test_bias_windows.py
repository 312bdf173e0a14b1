"""Any list of biases becomes a model's channels, or is refused with the way out."""

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.signal.bias_windows import BiasWindows, average

PAPER = BiasWindows(tuple(np.linspace(-0.23, 0.02, 8).tolist()), 0.25 / 14, 0.25 / 7)
"""Eight equidistant channels whose windows touch."""


def stack(biases, level=2.0):
    """Contrast that is linear in the bias on a constant level."""
    rng = np.random.default_rng(3)
    pattern = rng.uniform(-0.1, 0.1, (12, 10))
    pattern -= np.median(pattern)
    return level * (1 + np.asarray(biases)[:, None, None] * pattern), pattern


def test_126_biases_are_averaged_about_each_centre():
    biases = np.linspace(-0.23, 0.02, 126)
    maps, pattern = stack(biases)
    averaged, notes = average(maps, biases, PAPER)
    assert averaged.shape == (8, 12, 10)
    for channel, centre in zip(averaged, PAPER.centres, strict=True):
        inside = np.abs(biases - centre) <= PAPER.half_width + 1e-9
        np.testing.assert_allclose(channel, 1 + biases[inside].mean() * pattern, rtol=1e-9)
    assert "126 of 126 maps" in notes[0]


def test_order_set_point_and_repetition_do_not_matter():
    rng = np.random.default_rng(5)
    biases = np.sort(rng.uniform(-0.24, 0.03, 40))
    maps, _ = stack(biases)
    expected, _ = average(maps, biases, PAPER)
    order = rng.permutation(40)
    gains = rng.uniform(0.1, 10, 40)[:, None, None]
    np.testing.assert_allclose(average(maps[order], biases[order], PAPER)[0], expected, rtol=1e-9)
    np.testing.assert_allclose(average(gains * maps, biases, PAPER)[0], expected, rtol=1e-9)
    twice = average(np.concatenate([maps, maps]), np.concatenate([biases, biases]), PAPER)[0]
    np.testing.assert_allclose(twice, expected, rtol=1e-9)


def test_the_models_own_biases_pass_through():
    maps, _ = stack(PAPER.centres)
    averaged, _ = average(maps, PAPER.centres, PAPER)
    np.testing.assert_allclose(averaged, maps / 2, rtol=1e-9)


def test_few_biases_stand_in_within_reach_and_it_is_told():
    biases = np.array([0.02, -0.23, -0.105, -0.1675, -0.0425])
    maps, _ = stack(biases)
    averaged, notes = average(maps, biases, PAPER)
    np.testing.assert_allclose(averaged[0], maps[1] / 2, rtol=1e-9)
    nearest = np.abs(biases[:, None] - PAPER.centres).argmin(axis=0)
    assert "stands in" in notes[1]
    borrowed = [c for c, n in zip(PAPER.centres, nearest, strict=True) if abs(biases[n] - c) > PAPER.half_width + 1e-9]
    assert borrowed
    assert all(f"{c:g}" in notes[1] for c in borrowed)


def test_maps_below_the_band_bottom_are_never_used():
    biases = np.array([-0.075, -0.06, -0.03, 0.0, 0.02])
    windows = BiasWindows((-0.06, 0.0), 0.02, 0.04)
    maps, _ = stack(biases)
    averaged, notes = average(maps, biases, windows, band_bottom=-0.063)
    np.testing.assert_allclose(averaged[0], maps[1] / 2, rtol=1e-9)
    assert notes[-1] == "1 map at or below the band bottom, -0.063 eV, was left out."
    with pytest.raises(InputError, match=r"at or below the band bottom, -0.063 eV.*choose the material"):
        average(maps[:1], biases[:1], windows, band_bottom=-0.063)


@pytest.mark.parametrize(
    ("biases", "message"),
    [
        (None, "does not state its biases"),
        ([-0.1, 0.0], r"one bias for each map"),
        ([-0.1, np.nan, 0.0], "finite values in V"),
        ([0.2, 0.3, 0.4], r"no map within 0.0357143 V of -0.23, .* give a stack that covers them"),
        ([-230.0, -100.0, 20.0], "no map within"),
    ],
)
def test_what_cannot_be_used_is_refused(biases, message):
    maps, _ = stack([0.0, 0.1, 0.2])
    with pytest.raises(InputError, match=message):
        average(maps, biases, PAPER)


def test_wrong_windows_are_refused():
    for wrong in ((), (np.nan,)):
        with pytest.raises(InputError, match="finite values in V"):
            BiasWindows(wrong, 0.01, 0.02)
    with pytest.raises(InputError, match="reach"):
        BiasWindows((0.0,), 0.02, 0.01)
