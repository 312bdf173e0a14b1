"""Maxima are where they were put, to a fraction of a pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import peak_local_max

from stm_models.errors import InputError
from stm_models.signal.peaks import find_peaks


def gaussians(positions, width=0.8, shape=(60, 70), heights=None):
    y, x = np.mgrid[: shape[0], : shape[1]]
    heights = np.ones(len(positions)) if heights is None else heights
    spots = [h * np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * width**2)) for (a, b), h in zip(positions, heights)]  # noqa: B905
    return np.max(spots, axis=0)


def placed(rng, shape=(60, 70), step=9):
    grid = np.stack(np.meshgrid(np.arange(5, shape[0] - 5, step), np.arange(5, shape[1] - 5, step), indexing="ij"), -1)
    return grid.reshape(-1, 2) + rng.uniform(-2, 2, (grid.size // 2, 2))


def errors(positions, **options):
    found = find_peaks(gaussians(positions), threshold=0.1, **options)
    assert len(found) == len(positions)
    distance = np.hypot(*(found.positions[:, None] - positions[None]).transpose(2, 0, 1))
    assert sorted(distance.argmin(axis=1)) == list(range(len(positions)))
    return distance.min(axis=1)


def test_sub_pixel_positions_beat_the_pixel():
    positions = placed(np.random.default_rng(0))
    pixel, parabola, gaussian = (errors(positions, shape=s).mean() for s in ("pixel", "parabola", "gaussian"))
    assert pixel == pytest.approx(0.383, abs=0.06)  # the mean over a square of side 1
    assert parabola < 0.25 * pixel
    assert gaussian < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_maxima_are_those_of_skimage(seed):
    score = np.random.default_rng(seed).uniform(0.1, 1, (17, 23))
    found = find_peaks(score, shape="pixel")
    expected = peak_local_max(score, min_distance=1, exclude_border=False)
    assert {tuple(p) for p in found.positions.astype(int)} == {tuple(p) for p in expected}
    assert np.all(np.diff(found.height) <= 0)
    np.testing.assert_array_equal(found.height, score[tuple(found.positions.astype(int).T)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 6.0))
def test_suppression_is_the_greedy_one(seed, distance):
    score = np.random.default_rng(seed).uniform(0.1, 1, (25, 25))
    everything = find_peaks(score, min_distance=0)
    kept = []
    for position in everything.positions:
        if all(np.hypot(*(position - other)) > distance for other in kept):
            kept.append(position)
    np.testing.assert_array_equal(find_peaks(score, min_distance=distance).positions, kept)


def test_threshold_number_and_border():
    positions, heights = np.array([[0.0, 5.0], [10.0, 20.0], [30.2, 40.0]]), np.array([0.9, 0.5, 0.7])
    score = gaussians(positions, heights=heights)
    found = find_peaks(score, threshold=1e-3)
    np.testing.assert_allclose(found.positions, positions[[0, 2, 1]], atol=0.1)
    assert found.y[0] == 0  # on the edge the position across it is the pixel's
    assert len(find_peaks(score, threshold=0.6)) == len(found.above(0.6)) == 2
    np.testing.assert_array_equal(find_peaks(score, most=1).positions, found.first(1).positions)
    np.testing.assert_allclose(find_peaks(score, threshold=1e-3, border=1).height, [0.7 * np.exp(-0.04 / 1.28), 0.5])
    corner = np.zeros((9, 9))
    corner[8, 8] = 1
    np.testing.assert_array_equal(find_peaks(corner).positions, [[8, 8]])
    assert len(find_peaks(-score, threshold=-np.inf)) > 0


def test_plateaus_are_one_peak_shoulders_none():
    score = np.zeros((12, 12))
    score[2:5, 2:4] = 1.0  # saturated
    score[8, 4:9] = 0.5  # a flat shoulder
    score[8, 9] = 0.8
    found = find_peaks(score)
    np.testing.assert_allclose(found.positions, [[3, 2.5], [8, 9]], atol=0.3)
    assert len(find_peaks(np.full((5, 5), 2.0))) == 0
    assert len(find_peaks(np.zeros((5, 5)), threshold=-1.0)) == 0


def test_turning_the_map_turns_the_peaks():
    score = gaussians(placed(np.random.default_rng(2)))
    direct, turned = find_peaks(score), find_peaks(score.T)
    a, b = direct.positions, turned.positions[:, ::-1]
    np.testing.assert_allclose(a[np.lexsort(a.T)], b[np.lexsort(b.T)], atol=1e-9)


@pytest.mark.parametrize(
    ("score", "options", "message"),
    [
        (np.zeros(4), {}, r"shape \(4,\): expected \(y, x\)"),
        (np.full((3, 3), np.nan), {}, "NaN"),
        (np.zeros((3, 3)), {"min_distance": -1}, "minimum distance"),
        (np.zeros((3, 3)), {"border": -1}, "border"),
        (np.zeros((3, 3)), {"most": -1}, "number of peaks"),
        (np.zeros((3, 3)), {"shape": "spline"}, "unknown peak shape 'spline'"),
    ],
)
def test_wrong_input_is_refused(score, options, message):
    with pytest.raises(InputError, match=message):
        find_peaks(score, **options)
