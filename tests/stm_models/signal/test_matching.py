"""Pairs against an exhaustive search; scores against counting by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.signal.matching import chance_ratio, detection_scores, match, match_by_height, paper_ratio


def exhaustive(found, truth, tolerance):
    """Most pairs, then the smallest sum, over all assignments."""
    if len(found) > len(truth):
        return exhaustive(truth, found, tolerance)
    best = (0, 0.0)
    distance = np.hypot(*(found[:, None] - truth[None]).transpose(2, 0, 1)) if len(found) else np.zeros((0, len(truth)))
    for columns in itertools.permutations(range(len(truth)), len(found)):
        chosen = [distance[i, j] for i, j in enumerate(columns) if distance[i, j] <= tolerance]
        best = min(best, (-len(chosen), sum(chosen)))
    return -best[0], best[1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 5), st.floats(0.2, 2.0))
def test_pairs_are_the_best_ones(seed, f, t, tolerance):
    rng = np.random.default_rng(seed)
    found, truth = rng.uniform(0, 3, (f, 2)), rng.uniform(0, 3, (t, 2))
    pairs = match(found, truth, tolerance)
    count, total = exhaustive(found, truth, tolerance)
    assert len(pairs) == count
    assert pairs.distance.sum() == pytest.approx(total)
    assert len(set(pairs.found)) == len(set(pairs.truth)) == len(pairs)
    np.testing.assert_allclose(pairs.distance, np.hypot(*(found[pairs.found] - truth[pairs.truth]).T))


def test_one_peak_counts_once_and_the_higher_comes_first():
    found = np.array([[5.0, 5.4], [5.0, 5.0], [9.0, 9.0]])
    assert len(match(found, [[5.0, 5.0]])) == 1
    assert match(found, [[5.0, 5.0]]).found.tolist() == [1]
    np.testing.assert_allclose(match_by_height(found, [[5.0, 5.0]]), [0.4, np.inf, np.inf])
    assert len(match(found, found + 0.0)) == 3  # distance zero is a pair


def test_the_papers_ratio_counts_less_than_one_pixel():
    reference = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])
    found = np.array([[0.0, 0.99], [10.0, 1.0], [20.5, 0.0], [20.0, 0.5]])
    assert paper_ratio(found, reference) == 0.5
    assert paper_ratio([], reference) == paper_ratio(found, []) == 0
    two = np.array([[0.0, 0.0], [0.0, 1.0]])  # one peak may serve two points
    assert paper_ratio([[0.0, 0.5]], two) == 1


def test_chance_grows_with_the_number_of_peaks_as_poisson_says():
    rng = np.random.default_rng(1)
    reference = rng.uniform(0, 80, (300, 2)) - 0.5
    for count in (60, 600):
        found = rng.uniform(0, 80, (count, 2)) - 0.5
        expected = 1 - np.exp(-np.pi * count / 6400)
        assert chance_ratio(found, reference, (80, 80), np.random.default_rng(2), shifts=50) == pytest.approx(
            expected, rel=0.12
        )
    # Whatever the peaks are, a shift takes them away from the truth.
    assert chance_ratio(reference, reference, (80, 80), np.random.default_rng(3)) < 0.25


def test_scores_of_two_fields_counted_by_hand():
    truth = [np.array([[1.0, 1], [5, 5], [9, 9]]), np.array([[2.0, 2]])]
    found = [np.array([[1.0, 1.5], [5, 8.0]]), np.array([[2.0, 2.0], [7, 7], [8, 1.0]])]
    scores = detection_scores(found, truth, shape=(12, 12))
    assert scores["precision"] == 2 / 5
    assert scores["recall"] == 2 / 4
    assert scores["f1"] == pytest.approx(4 / 9)
    assert scores["false_positives"] == 1.5
    assert scores["count"] == 2.5
    assert scores["error_px"] == 0.25
    assert scores["paper_ratio"] == pytest.approx((1 / 3 + 1) / 2)
    assert scores["f1_low"] == pytest.approx(2 / 5)  # twice the worse field: 2/5 against 1/2
    assert scores == detection_scores(found, truth, shape=(12, 12))
    assert scores["chance_ratio"] != detection_scores(found, truth, shape=(12, 12), seed=1)["chance_ratio"]


def test_nothing_found_and_nothing_there():
    empty = np.empty((0, 2))
    none = detection_scores([empty], [empty], shape=(9, 9))
    assert (none["precision"], none["recall"], none["f1"]) == (1, 1, 1)
    assert np.isnan(none["error_px"])
    missed = detection_scores([[]], [[[1.0, 1.0]]], shape=(9, 9))
    assert (missed["precision"], missed["recall"], missed["f1"]) == (0, 0, 0)
    invented = detection_scores([[[1.0, 1.0]]], [[]], shape=(9, 9))
    assert (invented["precision"], invented["recall"], invented["f1"]) == (0, 0, 0)


def test_a_bootstrap_bound_lies_below_and_tightens():
    rng = np.random.default_rng(4)
    truth = [rng.uniform(0, 60, (10, 2)) for _ in range(64)]
    found = [t[rng.random(10) < 0.8] for t in truth]
    few, many = (detection_scores(found[:n], truth[:n], shape=(60, 60)) for n in (4, 64))
    assert few["f1_low"] < few["f1"]
    assert many["f1_low"] < many["f1"]
    assert many["f1"] - many["f1_low"] < 0.03


def test_large_fields_take_the_sparse_way():
    rng = np.random.default_rng(6)
    truth = rng.uniform(0, 2000, (20_000, 2))
    found = truth + rng.normal(0, 0.2, truth.shape)
    pairs = match(found, truth)
    assert len(pairs) > 0.999 * len(truth)


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [[1.0, 2.0, 3.0]], [[np.nan, 1.0]]])
def test_other_shapes_are_refused(wrong):
    with pytest.raises(InputError, match="finite y, x in pixels"):
        match(wrong, [[1.0, 1.0]])
    with pytest.raises(InputError, match="tolerance"):
        match([[1.0, 1.0]], [[1.0, 1.0]], 0.0)
    with pytest.raises(InputError, match="expected as many"):
        detection_scores([], [], shape=(9, 9))
