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
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError

__all__ = ["TailTable", "coverage_interval", "quantile", "separate", "tail_table"]

Floats = NDArray[np.float64]


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
        passed = np.clip((values - self.starts) / self.widths, 0, 1)
        result: Floats = np.maximum(1 - passed @ self.weights, self.floor)
        return result


def tail_table(scores: ArrayLike, groups: ArrayLike) -> TailTable:
    """Return the p-value of a new score: how often one of a held-out group is at least as large.

    With G groups, each of which weighs 1 / (G + 1) and its samples alike, it is
    (1 + sum over groups of their share >= score) / (G + 1) at held-out scores and linear between them, never below.
    For samples of new groups P(p-value <= a) <= a.

    Parameters
    ----------
    scores : (S,) array_like
        Of held-out samples, at least one.
    groups : (S,) array_like

    Examples
    --------
    >>> table = tail_table([1.0, 2.0, 3.0], [0, 1, 2])
    >>> table([0.5, 1.0, 2.0, 2.5, 3.0, 1e9]).tolist()
    [1.0, 1.0, 0.75, 0.625, 0.5, 0.25]
    """
    values, of = np.asarray(scores, np.float64), np.asarray(groups)
    if values.ndim != 1 or values.shape != of.shape or not len(values):
        raise InputError(f"p-values: scores {values.shape}, groups {of.shape}: expected two lists of one length")
    _, of, count = np.unique(of, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    values, weights = values[order], (1 / count[of] / (len(count) + 1))[order]
    known, first = np.unique(values, return_index=True)
    weights = np.add.reduceat(weights, first)
    # The last one's share is lost on as long a way as there was to it.
    ends = np.append(known[1:], known[-1] + max(abs(known[-1]), 1e-12))
    return TailTable(known, ends - known, weights, 1 / (len(count) + 1))


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
