"""Conformal statements: from held-out scores to a quantile that holds, and to a p-value.

Scores of one group (a simulated state) depend on each other, groups do not. A new group's score is then at most the
quantile with at least the stated probability, whatever the distribution, as long as groups are exchangeable.

References
----------
.. [1] Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World" (2005).
.. [2] Lee, Barber, Willett, "Distribution-free inference with hierarchical data", arXiv 2306.06342.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError

__all__ = ["coverage_interval", "p_value", "quantile", "separate"]


def quantile(scores: ArrayLike, groups: ArrayLike, level: float) -> float:
    """Smallest score that holds with probability ``level`` for a sample of a new group; infinity for too few groups.

    Each of G groups weighs 1 / (G + 1), its samples alike, and what is not known as much as one group.

    Parameters
    ----------
    scores : (S,) array_like
    groups : (S,) array_like of int
    level : float
        Between 0 and 1.

    Examples
    --------
    >>> quantile([3.0, 1.0, 2.0, 4.0], [0, 1, 2, 3], 0.6)
    3.0
    >>> quantile([3.0, 1.0, 2.0, 4.0], [0, 1, 2, 3], 0.9)
    inf
    """
    values, of = np.asarray(scores, np.float64), np.asarray(groups)
    if values.ndim != 1 or values.shape != of.shape or not 0 < level < 1:
        raise InputError(
            f"conformal quantile: scores {values.shape}, groups {of.shape}, level {level}: expected two lists of one "
            "length, and a level between 0 and 1"
        )
    _, of, count = np.unique(of, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weights = 1 / count[of[order]]
    reached = np.cumsum(weights) >= level * (len(count) + 1) - 1e-9
    return float(values[order][np.argmax(reached)]) if reached.any() else math.inf


def p_value(score: ArrayLike, calibration: ArrayLike) -> NDArray[np.float64]:
    """Share of held-out scores at least as large, the new one among them: (1 + #{c >= s}) / (1 + C).

    Parameters
    ----------
    score : array_like, any shape
    calibration : (C,) array_like
        Of held-out samples, one of each group.

    Examples
    --------
    >>> p_value([0.5, 2.5, 9.0], [1.0, 2.0, 3.0]).tolist()
    [1.0, 0.5, 0.25]
    """
    values, known = np.asarray(score, np.float64), np.sort(np.asarray(calibration, np.float64))
    below = np.searchsorted(known, values, side="left")
    result: NDArray[np.float64] = (1 + len(known) - below) / (1 + len(known))
    return result


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


def coverage_interval(covered: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial (Clopper-Pearson) interval of a share ``covered / count``.

    Examples
    --------
    >>> low, high = coverage_interval(1350, 1500)
    >>> round(low, 3), round(high, 3)
    (0.884, 0.915)
    """
    from scipy.stats import binomtest

    found = binomtest(covered, count).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)
