"""Confidence learnt on some fields holds on others; the threshold is the best one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from stm_models.errors import InputError
from stm_models.signal.calibration import Calibration, fit, kept, reliability
from stm_models.signal.matching import detection_scores
from stm_models.signal.peaks import Peaks


def probability(height):
    """Of being right, of a peak of this height between 0 and 1."""
    return 1 / (1 + np.exp(-12 * (height - 0.5)))


def fields(seed, count=40, error=0.3):
    """Peaks that are right with a known probability; right and high ones are closer."""
    rng = np.random.default_rng(seed)
    grid = (
        np.stack(np.meshgrid(np.arange(4, 80, 8), np.arange(4, 80, 8), indexing="ij"), -1).reshape(-1, 2).astype(float)
    )
    peaks, truth = [], []
    for _ in range(count):
        height = np.sort(rng.uniform(0, 1, len(grid)))[::-1]
        right = rng.random(len(grid)) < probability(height)
        moved = grid + rng.normal(0, 1, grid.shape) * (error * (1.2 - height))[:, None]
        missed = rng.uniform(90, 200, (5, 2))
        peaks.append(Peaks(moved[:, 0], moved[:, 1], height))
        truth.append(np.concatenate([grid[right], missed]))
    return peaks, truth


@pytest.fixture(scope="module")
def learnt():
    return fit(*fields(0))


def test_confidence_is_the_probability_also_on_fresh_fields(learnt):
    height = np.linspace(0.05, 0.95, 50)
    np.testing.assert_allclose(learnt.apply(height), probability(height), atol=0.1)
    assert np.all(np.diff(learnt.apply(np.linspace(-1, 2, 1000))) >= 0)
    assert 0 < learnt.apply(-5.0) < learnt.apply(5.0) < 1  # a few peaks make no certainty
    peaks, truth = fields(1)
    height = np.concatenate([p.height for p in peaks])
    right = np.concatenate(
        [
            np.hypot(*(p.positions[:, None] - t[None]).transpose(2, 0, 1)).min(axis=1) <= 1
            for p, t in zip(peaks, truth, strict=True)
        ]
    )
    assert reliability(learnt.apply(height), right)["ece"] < 0.025
    assert reliability(height**3, right)["ece"] > 0.1


def test_what_is_stated_of_fresh_fields_is_held_against_the_truth(learnt):
    peaks, truth = fields(2)
    found = kept(learnt, peaks, truth)
    assert found["confidence_error"] < 0.025
    assert learnt.radius_share == 0.9
    assert 0.87 < found["radius_coverage"] < 0.93
    near = replace(learnt, radius=tuple(np.array(learnt.radius) / 2))
    assert kept(near, peaks, truth)["radius_coverage"] < 0.6
    sure = replace(learnt, confidence=(1.0,) * len(learnt.confidence))
    reported = [one.above(learnt.threshold) for one in peaks]
    right = np.mean(np.concatenate([probability(one.height) for one in reported]))
    assert kept(sure, peaks, truth)["confidence_error"] == pytest.approx(1 - right, abs=0.02)
    bare = replace(learnt, radius=(), radius_confidence=())
    assert set(kept(bare, peaks, truth)) == {"confidence_error"}
    assert kept(learnt, [peaks[0].first(0)], truth[:1]) == {}


def test_background_that_nobody_sees_does_not_flatter_the_stated_confidence():
    certain = Calibration(0.5, (0.4, 0.6), (0.0, 1.0), (), (), 0.9, 0.0)
    place = 8.0 * np.arange(100)
    peaks = Peaks(place, place, np.repeat([0.9, 0.1], [10, 90]))
    truth = [np.stack([place, place], axis=1)[:6]]
    assert kept(certain, [peaks], truth) == kept(certain, [peaks.first(10)], truth)
    assert kept(certain, [peaks], truth)["confidence_error"] == pytest.approx(0.4)
    assert kept(certain, [Peaks(place, place, np.full(100, 0.1))], truth) == {}


def test_levels_are_those_of_an_independent_isotonic_regression(learnt):
    peaks, truth = fields(0)
    height = np.concatenate([p.height for p in peaks])
    right = np.concatenate(
        [
            np.hypot(*(p.positions[:, None] - t[None]).transpose(2, 0, 1)).min(axis=1) <= 1
            for p, t in zip(peaks, truth, strict=True)
        ]
    )
    expected = IsotonicRegression(out_of_bounds="clip").fit(height, right).predict(height)
    assert np.abs(learnt.apply(height) - expected).mean() < 0.01


def test_no_other_threshold_has_a_higher_f1(learnt):
    peaks, truth = fields(0)

    def f1(threshold):
        return detection_scores(
            [p.above(threshold).positions for p in peaks], truth, shape=(80, 80), resamples=1
        )["f1"]  # fmt: skip

    assert f1(learnt.threshold) == pytest.approx(learnt.f1, abs=1e-12)
    assert learnt.f1 >= max(f1(t) for t in np.linspace(0.05, 0.95, 7)) - 1e-12
    assert 0.3 < learnt.threshold < 0.5  # in theory where the probability is half the best F1


def test_the_radius_holds_the_stated_share_and_shrinks_with_confidence(learnt):
    peaks, truth = fields(2)
    inside = total = 0
    for p, t in zip(peaks, truth, strict=True):
        distance = np.hypot(*(p.positions[:, None] - t[None]).transpose(2, 0, 1)).min(axis=1)
        which = (p.height > learnt.threshold) & (distance < 3)
        inside += np.count_nonzero(distance[which] <= learnt.position_radius(p.height[which]))
        total += which.sum()
    # At least .9, and by what so few fields do not know more.
    assert 0.88 <= inside / total <= 0.9 + 1 / (len(peaks) + 1) + 0.02
    assert learnt.position_radius(0.95) < 0.7 * learnt.position_radius(0.45)


def test_a_perfect_detector_keeps_everything_and_its_radius_is_small():
    rng = np.random.default_rng(3)
    truth = [rng.uniform(0, 50, (30, 2)) for _ in range(3)]
    peaks = [Peaks(t[:, 0], t[:, 1], np.linspace(1, 0.5, 30)) for t in truth]
    learnt = fit(peaks, truth)
    assert learnt.f1 == 1
    assert all(len(p.above(learnt.threshold)) == 30 for p in peaks)
    assert learnt.apply(0.7) > 0.98
    assert learnt.position_radius(0.7) < 1e-9


def test_the_record_is_json_and_a_broken_one_is_refused(learnt):
    record = json.loads(json.dumps(learnt.record()))
    again = Calibration.of(record)
    assert again == learnt
    np.testing.assert_array_equal(again.apply([0.2, 0.8]), learnt.apply([0.2, 0.8]))
    broken = [
        {"heights": [1.0]},
        {"confidence": record["confidence"][::-1]},
        {"threshold": "high"},
        {"radius": [1.0]},
        {"heights": None},
        {"threshold": float("nan")},
    ]
    for change in broken:
        with pytest.raises(InputError, match="calibrate the model again"):
            Calibration.of(record | change)
    del record["threshold"]
    with pytest.raises(InputError, match="'threshold'"):
        Calibration.of(record)


def test_reliability_by_hand():
    result = reliability([0.25] * 4 + [0.75] * 4, [0, 0, 0, 1, 1, 1, 0, 0], bins=2)
    assert result["ece"] == pytest.approx(0.5 * 0 + 0.5 * 0.25)
    assert result["brier"] == pytest.approx((3 * 0.0625 + 0.5625 + 2 * 0.0625 + 2 * 0.5625) / 8)
    assert (result["frequency"], result["count"]) == ([0.25, 0.5], [4, 4])
    assert reliability([0.5] * 6, [1, 0] * 3, bins=3)["count"] == [6]


def test_nothing_to_learn_from_is_refused():
    peaks, truth = fields(0, count=1)
    with pytest.raises(InputError, match="none of 100 peaks lies within"):
        fit(peaks, [np.array([[300.0, 300.0]])])
    with pytest.raises(InputError, match="expected as many"):
        fit(peaks, truth * 2)
    for wrong in (([], []), ([0.5], [1, 0]), ([1.5], [1])):
        with pytest.raises(InputError, match=r"expected"):
            reliability(*wrong)
