"""From score maps to impurities, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.signal import calibration as calibrating
from stm_models.signal.calibration import Calibration
from stm_models.signal.matching import detection_scores, match, match_by_height
from stm_models.signal.peaks import Peaks, find_peaks
from stm_models.tasks.impurity.labels import unpadded

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = [
    "TOLERANCE", "calibrate", "calibration_of", "judged", "maxima", "metrics", "panel_arrays", "points",
    "positions_of", "right_positions", "scores", "truths",
]  # fmt: skip

Floats = NDArray[np.float64]

TOLERANCE = 1.0
"""A position this far from the true one, in px, is right."""
_CLOSEST = 2.0  # px; of two maxima closer than this the higher stays
_FLOOR = 0.02  # of the highest maximum of a map; below it is background
_DEFAULT = 0.3
_KEPT = ("precision", "recall", "f1", "f1_low", "error_px", "false_positives", "count", "paper_ratio", "chance_ratio")


def maxima(score: NDArray[Any]) -> Peaks:
    """All maxima of a score map (H, W) that may be impurities, the highest first."""
    values = np.asarray(score, np.float64)
    floor = _FLOOR * max(float(values.max(initial=0.0)), 0.0)
    return find_peaks(values, threshold=floor, min_distance=_CLOSEST, most=values.size // 8, shape="gaussian")


def truths(samples: Samples) -> list[Floats]:
    """True positions of each sample, (N, 2) y, x in px."""
    return unpadded(samples.arrays["positions"])


def calibrate(prediction: NDArray[Any], samples: Samples) -> dict[str, Any]:
    """Learn the threshold of largest F1, and what a height is worth; empty where no maximum is right."""
    try:
        found = calibrating.fit([maxima(one[0]) for one in prediction], truths(samples), tolerance=TOLERANCE)
    except InputError:
        return {}
    return found.record()


def calibration_of(record: Mapping[str, Any]) -> Calibration:
    """Calibration from its record; without one the threshold is .3 and a height its own confidence."""
    if record:
        return Calibration.of(record)
    return Calibration(_DEFAULT, (0.0, 1.0), (0.0, 1.0), (), (), 0.9, 0.0)


def metrics(prediction: NDArray[Any], samples: Samples, record: Mapping[str, Any]) -> dict[str, float]:
    """Score maps (S, 1, H, W) above the calibrated threshold, and ``top_f1`` where the number was known beforehand.

    Of several pseudo-experiments each has its own ``f1_NAME`` too. What a calibration states is held against the truth:
    see `stm_models.signal.calibration.kept`.
    """
    peaks, truth = [maxima(one[0]) for one in prediction], truths(samples)
    calibration = calibration_of(record)
    threshold = calibration.threshold
    shape = (prediction.shape[-2], prediction.shape[-1])
    found = [one.above(threshold).positions for one in peaks]
    result = scores(found, truth, shape)
    top = [one.first(len(true)).positions for one, true in zip(peaks, truth, strict=True)]
    result["top_f1"] = detection_scores(top, truth, shape=shape, tolerance=TOLERANCE, resamples=1)["f1"]
    if record:
        result |= calibrating.kept(calibration, peaks, truth, tolerance=TOLERANCE)
    names = samples.attributes.get("presets", [])
    which = samples.coordinates.get("preset", np.zeros(len(truth))).astype(int)
    if len(np.unique(which)) > 1:
        for number in np.unique(which):
            rows = np.flatnonzero(which == number)
            part = scores([found[row] for row in rows], [truth[row] for row in rows], shape)
            result |= {f"{key}_{names[number]}": part[key] for key in ("f1", "error_px")}
    return result


def positions_of(prediction: NDArray[Any], record: Mapping[str, Any]) -> list[Floats]:
    """Found positions above the calibrated threshold, (N, 2) y, x in px of each field."""
    threshold = calibration_of(record).threshold
    return [maxima(one[0]).above(threshold).positions for one in prediction]


def right_positions(prediction: NDArray[Any], samples: Samples, record: Mapping[str, Any]) -> list[Floats]:
    """Found positions above the calibrated threshold that are right, (N, 2) y, x in px of each field."""
    found = positions_of(prediction, record)
    return [one[match(one, true, TOLERANCE).found] for one, true in zip(found, truths(samples), strict=True)]


def scores(found: Sequence[Floats], truth: Sequence[Floats], shape: tuple[int, int]) -> dict[str, float]:
    """Precision, recall, F1 and the like of positions; without any pair the error is the tolerance."""
    all_scores = detection_scores(found, truth, shape=shape, tolerance=TOLERANCE)
    result = {name: float(all_scores[name]) for name in _KEPT}
    if not np.isfinite(result["error_px"]):
        result["error_px"] = TOLERANCE
    return result


def judged(prediction: NDArray[Any], samples: Samples) -> tuple[Floats, NDArray[np.bool_], int]:
    """Heights of all maxima, whether each is right, and the number of impurities."""
    truth = truths(samples)
    peaks = [maxima(one[0]) for one in prediction]
    height = np.concatenate([one.height for one in peaks])
    error = [match_by_height(one.positions, true, TOLERANCE) for one, true in zip(peaks, truth, strict=True)]
    return height, np.isfinite(np.concatenate(error)), sum(len(true) for true in truth)


def points(prediction: NDArray[Any], samples: Samples, record: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Confidence of every maximum (N,), whether each is ``right`` and is ``reported``, and the number of impurities."""
    height, right, total = judged(prediction, samples)
    calibration = calibration_of(record)
    return {
        "confidence": calibration.apply(height), "right": right, "reported": height > calibration.threshold,
        "impurities": np.array([total]),
    }  # fmt: skip


def panel_arrays(prediction: NDArray[Any], samples: Samples, record: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """True positions (S, K, 2) y, x in px, and found ones (S, L, 3) with confidence; NaN where there are fewer."""
    calibration = calibration_of(record)
    found = [maxima(one[0]).above(calibration.threshold) for one in prediction]
    rows = [np.column_stack([one.positions, calibration.apply(one.height)]) for one in found]
    return {"positions.true": _padded(truths(samples), 2), "positions.found": _padded(rows, 3)}


def _padded(lists: Sequence[Floats], width: int) -> Floats:
    result = np.full((len(lists), max(map(len, lists), default=0), width), np.nan)
    for row, one in zip(result, lists, strict=True):
        row[: len(one)] = one
    return result
