"""What a peak's height is worth, learnt on simulations: a threshold, a confidence and a position radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from stm_models.errors import InputError
from stm_models.signal.conformal import quantile
from stm_models.signal.matching import match_by_height
from stm_models.signal.peaks import Peaks

__all__ = ["Calibration", "fit", "kept", "reliability"]

Floats = NDArray[np.float64]
_BINS = 5  # of the position radius
_NEAR = 2.0  # px; up to where a maximum counts as the same impurity's for the radius
_LISTS = ("heights", "confidence", "radius_confidence", "radius")


@dataclass(frozen=True)
class Calibration:
    """A table; applying it takes numpy alone.

    Attributes
    ----------
    threshold : float
        Peaks must be higher.
    heights, confidence : tuple of float
        Confidence at ascending heights, linear between them, constant outside.
    radius_confidence, radius : tuple of float, px
        Radius around the position that holds the impurity, if there is one, with probability ``radius_share``, at
        ascending confidence.
    radius_share : float
    f1 : float
        Of the simulated fields at the threshold.
    """

    threshold: float
    heights: tuple[float, ...]
    confidence: tuple[float, ...]
    radius_confidence: tuple[float, ...]
    radius: tuple[float, ...]
    radius_share: float
    f1: float

    def apply(self, height: ArrayLike) -> Floats:
        """Probability that a peak of this height is an impurity: same shape, float64."""
        result: Floats = np.interp(np.asarray(height, np.float64), self.heights, self.confidence)
        return result

    def position_radius(self, height: ArrayLike) -> Floats:
        """Radius of the position in px: same shape as ``height``, float64; NaN where none could be learnt."""
        if not self.radius:
            return np.full(np.shape(height), np.nan)
        result: Floats = np.interp(self.apply(height), self.radius_confidence, self.radius)
        return result

    def record(self) -> dict[str, Any]:
        """Return what JSON can hold and :meth:`of` reads."""
        scalars = {"threshold": self.threshold, "radius_share": self.radius_share, "f1": self.f1}
        return scalars | {name: list(getattr(self, name)) for name in _LISTS}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Calibration:
        """Calibration from its record.

        Raises
        ------
        InputError
            When an entry is missing, or the table is no table.
        """
        try:
            lists = {name: tuple(float(value) for value in record[name]) for name in _LISTS}
            scalars = {name: float(record[name]) for name in ("threshold", "radius_share", "f1")}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"calibration is not readable ({error}): expected threshold, radius_share, f1 and lists "
                f"{', '.join(_LISTS)}; calibrate the model again"
            ) from None
        heights, confidence = np.array(lists["heights"]), np.array(lists["confidence"])
        sound = (
            len(heights) == len(confidence) > 0
            and len(lists["radius"]) == len(lists["radius_confidence"])
            and all(np.all(np.isfinite(values)) for values in lists.values())
            and np.all(np.diff(heights) > 0)
            and np.all(np.diff(confidence) >= 0)
            and np.all(np.diff(lists["radius_confidence"]) > 0)
            and confidence[0] >= 0
            and confidence[-1] <= 1
            and np.isfinite(scalars["threshold"])
        )
        if not sound:
            raise InputError(
                "calibration holds no table of ascending heights and confidences between 0 and 1: "
                "calibrate the model again"
            )
        return cls(
            scalars["threshold"], lists["heights"], lists["confidence"], lists["radius_confidence"], lists["radius"],
            scalars["radius_share"], scalars["f1"],
        )  # fmt: skip


def fit(
    peaks: Sequence[Peaks],
    truth: Sequence[ArrayLike],
    *,
    tolerance: float = 1.0,
    radius_share: float = 0.9,
    radius_tolerance: float = _NEAR,
) -> Calibration:
    """Learn from simulated fields with known positions.

    Parameters
    ----------
    peaks : sequence of Peaks
        All maxima of each field, found without a threshold (``-inf``, or one far below any useful).
    truth : sequence of (T, 2) array_like, px
    tolerance : float, px
        Of a correct position.
    radius_share : float
    radius_tolerance : float, px
        Up to where a maximum counts as the same impurity's when the radius is learnt.

    Raises
    ------
    InputError
        When there are no fields, none with impurities, or no peak is right.

    Notes
    -----
    The threshold lies in the middle between two heights, where F1 of all fields together is largest. Confidence is an
    isotonic regression of right (1) or wrong (0) on the height; each level holds (right + 1/2) / (peaks + 1), so that
    few peaks never make certainty. The radius is split conformal over fields, see `stm_models.signal.conformal`.
    """
    if not len(peaks) or len(peaks) != len(truth):
        raise InputError(f"{len(peaks)} fields of peaks and {len(truth)} of true positions: expected as many, and some")
    height = np.concatenate([one.height for one in peaks])
    error = np.concatenate(
        [match_by_height(one.positions, true, tolerance) for one, true in zip(peaks, truth, strict=True)]
    )
    right = np.isfinite(error)
    total = sum(len(np.asarray(true)) for true in truth)
    if not right.any():
        raise InputError(
            f"none of {len(height)} peaks lies within {tolerance:g} px of one of {total} impurities: nothing can be "
            "learnt from these simulations; train the model longer, or simulate fields with impurities"
        )
    threshold, best = _threshold(height, right, total)
    heights, confidence = _confidence(height, right)
    wide = np.concatenate(
        [match_by_height(one.positions, true, radius_tolerance) for one, true in zip(peaks, truth, strict=True)]
    )
    near = np.isfinite(wide) & (height > threshold)
    field = np.repeat(np.arange(len(peaks)), [len(one.height) for one in peaks])
    radius_confidence, radius = _radius(
        np.interp(height[near], heights, confidence), wide[near], field[near], radius_share
    )
    return Calibration(
        threshold, _tuple(heights), _tuple(confidence), _tuple(radius_confidence), _tuple(radius), radius_share, best
    )


def kept(
    calibration: Calibration, peaks: Sequence[Peaks], truth: Sequence[ArrayLike], *, tolerance: float = 1.0
) -> dict[str, float]:
    """Hold what a calibration states of fields against the truth.

    Parameters
    ----------
    calibration : Calibration
    peaks : sequence of Peaks
        All maxima of each field.
    truth : sequence of (T, 2) array_like, px
    tolerance : float, px
        Of a correct position.

    Returns
    -------
    dict
        ``confidence_error``, the ``ece`` of `reliability` over the maxima above the threshold, those that are
        reported: nearly all others are background, which any calibration is right about; ``radius_coverage``, the
        share of reported positions within 2 px of an impurity whose stated radius holds it: to compare with
        ``radius_share``. Each is left out where nothing states it.
    """
    reported = [(one.above(calibration.threshold), true) for one, true in zip(peaks, truth, strict=True)]
    fields = [(one, true) for one, true in reported if len(one)]
    if not fields:
        return {}
    confidence = np.concatenate([calibration.apply(one.height) for one, _ in fields])
    right = np.concatenate([np.isfinite(match_by_height(one.positions, true, tolerance)) for one, true in fields])
    result = {"confidence_error": float(reliability(confidence, right)["ece"])}
    error = np.concatenate([match_by_height(one.positions, true, _NEAR) for one, true in fields])
    radius = np.concatenate([calibration.position_radius(one.height) for one, _ in fields])
    near = np.isfinite(error) & np.isfinite(radius)
    return result | ({"radius_coverage": float(np.mean(error[near] <= radius[near]))} if near.any() else {})


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = 10) -> dict[str, Any]:
    """How far stated confidences are from observed frequencies.

    Parameters
    ----------
    confidence : (N,) array_like
    right : (N,) array_like of bool
    bins : int
        Of equally many peaks; equal confidences are never torn apart.

    Returns
    -------
    dict
        ``ece``, the mean distance |confidence - frequency| weighted by the bins' sizes; ``brier``, the mean square
        error; lists ``confidence``, ``frequency``, ``count`` of the bins.

    Raises
    ------
    InputError
        For no peaks, different lengths, or confidences outside 0 to 1.
    """
    stated, observed = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if stated.ndim != 1 or stated.shape != observed.shape or not len(stated) or bins < 1:
        raise InputError(f"confidences have shape {stated.shape}, outcomes {observed.shape}: expected two equal lists")
    if not np.all((stated >= 0) & (stated <= 1)):
        raise InputError("confidences reach beyond 0 to 1: expected probabilities")
    ordered = np.sort(stated)
    edges = np.unique(ordered[(np.arange(1, bins) * len(ordered)) // bins])
    _, of = np.unique(np.searchsorted(edges, stated, side="right"), return_inverse=True)
    count = np.bincount(of)
    mean, frequency = np.bincount(of, stated) / count, np.bincount(of, observed) / count
    return {
        "ece": float(np.sum(count * np.abs(mean - frequency)) / len(stated)),
        "brier": float(np.mean((stated - observed) ** 2)),
        "confidence": mean.tolist(),
        "frequency": frequency.tolist(),
        "count": count.tolist(),
    }


def _threshold(height: Floats, right: NDArray[np.bool_], total: int) -> tuple[float, float]:
    order = np.argsort(-height, kind="stable")
    ordered, matched = height[order], np.cumsum(right[order])
    score = 2 * matched / (np.arange(1, len(height) + 1) + total)
    cut = np.append(ordered[1:] < ordered[:-1], True)  # equal heights pass or fail together
    best = int(np.argmax(np.where(cut, score, -1.0)))
    if best + 1 < len(ordered):
        return float((ordered[best] + ordered[best + 1]) / 2), float(score[best])
    return float(np.nextafter(ordered[best], -np.inf)), float(score[best])


def _confidence(height: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Knots of the isotonic table: both ends of every level."""
    values, of = np.unique(height, return_inverse=True)
    count = np.bincount(of).astype(np.float64)
    good = np.bincount(of, right.astype(np.float64))
    level = isotonic_regression(good / count, weights=count)
    starts = level.blocks[:-1]
    weight = np.add.reduceat(count, starts)
    shrunk = isotonic_regression((np.add.reduceat(good, starts) + 0.5) / (weight + 1), weights=weight).x
    ends = np.append(starts[1:], len(values)) - 1
    knots = np.stack([values[starts], values[ends]], axis=1).ravel()
    levels = np.repeat(shrunk, 2)
    knots, first = np.unique(knots, return_index=True)
    return knots, levels[first]


def _radius(confidence: Floats, error: Floats, field: NDArray[np.int64], share: float) -> tuple[Floats, Floats]:
    """Mean confidence of bins of equally many peaks, and the conformal quantile of their errors, which never grows.

    A bin of too few fields for the share has its largest error.
    """
    if not len(error):
        return np.empty(0), np.empty(0)
    parts = np.array_split(np.argsort(confidence, kind="stable"), max(1, min(_BINS, len(error) // 10)))
    means, of = np.unique([confidence[part].mean() for part in parts], return_inverse=True)
    radius = []
    for index in range(len(means)):
        rows = np.concatenate([part for part, bin_ in zip(parts, of, strict=True) if bin_ == index])
        radius.append(min(quantile(error[rows], field[rows], share), float(error[rows].max())))
    weights = np.bincount(of, [len(part) for part in parts])
    return means, isotonic_regression(np.array(radius), weights=weights, increasing=False).x


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
