"""Conformal statements: from held-out scores to a quantile that holds, and to a p-value.

Scores of one group (a simulated state) depend on each other, groups do not. A new group's score is then at most the
quantile with at least the stated probability, whatever the distribution, as long as groups are exchangeable.

References
----------
.. [1] Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World" (2005).
.. [2] Lee, Barber, Willett, "Distribution-free inference with hierarchical data", arXiv 2306.06342.
.. [3] Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Ann. Stat. 51, 149 (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError

__all__ = ["TailTable", "coverage_interval", "least_p", "quantile", "separate", "tail_table"]

Floats = NDArray[np.float64]

_CONFIDENCE, _SMALL = 0.95, 0.01
"""Of tail tables; used where the groups are enough to tell a p-value this small with it."""


def quantile(scores: ArrayLike, groups: ArrayLike, level: float) -> float:
    """Smallest score that holds with probability ``level`` for a sample of a new group; infinity for too few groups.

    Each of G groups weighs 1 / (G + 1), its samples alike, and what is not known as much as one group.

    Parameters
    ----------
    scores : (S,) array_like
    groups : (S,) array_like of int
    level : float
        Between 0 and 1.

    Raises
    ------
    InputError
        For lists of different lengths, NaN among the scores, or another level.

    Examples
    --------
    >>> quantile([3.0, 1.0, 2.0, 4.0], [0, 1, 2, 3], 0.6)
    3.0
    >>> quantile([3.0, 1.0, 2.0, 4.0], [0, 1, 2, 3], 0.9)
    inf
    """
    values, of = np.asarray(scores, np.float64), np.asarray(groups)
    if values.ndim != 1 or values.shape != of.shape or not 0 < level < 1 or np.isnan(values).any():
        raise InputError(
            f"conformal quantile: scores {values.shape}, {np.isnan(values).sum()} of them NaN, groups {of.shape}, "
            f"level {level}: expected two lists of one length without NaN, and a level between 0 and 1"
        )
    _, of, count = np.unique(of, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weights = 1 / count[of[order]]
    reached = np.cumsum(weights) >= level * (len(count) + 1) - 1e-9
    return float(values[order][np.argmax(reached)]) if reached.any() else math.inf


@dataclass(frozen=True)
class TailTable:
    """A p-value as a sum of ramps: 1 - sum_i weights_i clip((score - starts_i) / widths_i, 0, 1), at least ``floor``.

    Attributes
    ----------
    starts, widths, weights : (K,) float64
    floor : float
        Reached far out; no p-value is smaller.
    """

    starts: Floats
    widths: Floats
    weights: Floats
    floor: float

    def __call__(self, score: ArrayLike) -> Floats:
        """Return the p-value of each score, same shape."""
        values = np.asarray(score, np.float64)[..., None]
        with np.errstate(over="ignore"):  # far beyond a step as narrow as numbers can be
            passed = np.clip((values - self.starts) / self.widths, 0, 1)
        result: Floats = np.maximum(1 - passed @ self.weights, self.floor)
        return result


def tail_table(scores: ArrayLike, groups: ArrayLike) -> TailTable:
    """Return the p-value of a new score: how often one of a new group is at least as large.

    Of G held-out groups k have such a score (a group counts by the share of its samples that do). The plain conformal
    p-value is (k + 1) / (G + 1): over many calibrations new samples have p <= a no more often than a, but after one
    calibration in two somewhat more often. With 299 groups or more it is Clopper and Pearson's upper bound instead:
    after 95 % of all calibrations new samples have p <= a no more often than a [3]_. (Fewer groups could not tell a
    p-value of .01 with that confidence, however far a sample is.) Linear between held-out scores, never below.

    Parameters
    ----------
    scores : (S,) array_like
        Of held-out samples, at least one.
    groups : (S,) array_like

    Raises
    ------
    InputError
        For lists of different lengths, none or NaN among the scores.

    Examples
    --------
    >>> table = tail_table([1.0, 2.0, 3.0], [0, 1, 2])
    >>> table([0.5, 1.0, 2.0, 2.5, 3.0, 1e9]).tolist()
    [1.0, 1.0, 0.75, 0.625, 0.5, 0.25]
    """
    from scipy.special import betaincinv

    values, of = np.asarray(scores, np.float64), np.asarray(groups)
    if values.ndim != 1 or values.shape != of.shape or not len(values) or np.isnan(values).any():
        raise InputError(
            f"p-values: scores {values.shape}, {np.isnan(values).sum()} of them NaN, groups {of.shape}: expected two "
            "lists of one length without NaN"
        )
    _, of, count = np.unique(of, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    values, shares = values[order], 1 / count[of[order]]
    known, first = np.unique(values, return_index=True)
    farther = np.append(np.cumsum(np.add.reduceat(shares, first)[::-1])[::-1][1:], 0.0)  # groups, beyond each score
    beyond = (farther + 1) / (len(count) + 1)
    if _bounded(len(count)):
        beyond = betaincinv(farther + 1, len(count) - farther, _CONFIDENCE)
    # The last one's share is lost on as long a way as there was to it.
    ends = np.append(known[1:], known[-1] + max(abs(known[-1]), 1e-12))
    return TailTable(known, ends - known, -np.diff(beyond, prepend=1.0), float(beyond[-1]))


def least_p(groups: int) -> float:
    """Return the smallest p-value that a table of so many groups gives: its floor.

    Examples
    --------
    >>> least_p(19), round(least_p(400), 4)
    (0.05, 0.0075)
    """
    return 1 - (1 - _CONFIDENCE) ** (1 / groups) if _bounded(groups) else 1 / (groups + 1)


def _bounded(groups: int) -> bool:
    return 1 - (1 - _CONFIDENCE) ** (1 / groups) < _SMALL


def separate(first: ArrayLike, second: ArrayLike, what: str) -> None:
    """Refuse groups that are on both sides.

    Raises
    ------
    InputError
        Naming one of them: what was fitted to knows it, and a statement calibrated on it would not hold.
    """
    both = np.intersect1d(np.asarray(first), np.asarray(second))
    if len(both):
        raise InputError(
            f"{len(both)} groups (e.g. {both[0]}) are both in {what}: expected groups that are in one of them, "
            "e.g. states simulated for the purpose"
        )


def coverage_interval(covered: int, count: int) -> tuple[float, float]:
    """Exact binomial (Clopper-Pearson) interval, of 95 % confidence, of a share ``covered / count``.

    Examples
    --------
    >>> low, high = coverage_interval(1350, 1500)
    >>> round(low, 3), round(high, 3)
    (0.884, 0.915)
    """
    from scipy.stats import binomtest

    found = binomtest(covered, count).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
