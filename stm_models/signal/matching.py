"""How well found positions agree with true ones: one-to-one assignment, and the ratio of arXiv:2006.15898."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from stm_models.errors import InputError

__all__ = ["Match", "chance_ratio", "detection_scores", "match", "match_by_height", "paper_ratio"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SHIFTS = 20


@dataclass(frozen=True)
class Match:
    """Pairs of a found and a true position.

    Attributes
    ----------
    found, truth : (M,) int64
        Indices.
    distance : (M,) float64, px
    """

    found: Ints
    truth: Ints
    distance: Floats

    def __len__(self) -> int:
        return len(self.distance)


def match(found: ArrayLike, truth: ArrayLike, tolerance: float = 1.0) -> Match:
    """Pair each position with at most one of the others: as many pairs as possible, and of these the closest.

    Parameters
    ----------
    found : (F, 2) array_like, px
    truth : (T, 2) array_like, px
    tolerance : float, px
        Farther apart is no pair.

    Raises
    ------
    InputError
        For positions of another shape or not finite, or a tolerance that is not positive.
    """
    rows, columns, distance = _close(found, truth, tolerance)
    if not len(distance):
        return Match(rows, columns, distance)
    f, t = rows.max() + 1, columns.max() + 1
    graph = coo_array((np.ones(len(rows)), (rows, f + columns)), shape=(f + t, f + t))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[rows], kind="stable")
    starts = np.flatnonzero(np.diff(group[rows][order], prepend=-1))
    pairs = [_assign(rows[part], columns[part], distance[part]) for part in np.split(order, starts[1:])]
    result = np.concatenate(pairs)
    result = result[np.argsort(result[:, 0], kind="stable")]
    return Match(result[:, 0].astype(np.int64), result[:, 1].astype(np.int64), result[:, 2])


def match_by_height(found: ArrayLike, truth: ArrayLike, tolerance: float = 1.0) -> Floats:
    """Let each found position, the highest first, take the nearest true one that is still free.

    So that raising a threshold never changes the pairs of the peaks that stay.

    Returns
    -------
    (F,) float64, px
        Distance from its partner; infinite without one.
    """
    rows, columns, distance = _close(found, truth, tolerance)
    result = np.full(len(_positions(found, "found")), np.inf)
    free = np.ones(len(_positions(truth, "true")), bool)
    for index in np.lexsort((distance, rows)):
        row, column = rows[index], columns[index]
        if free[column] and np.isinf(result[row]):
            free[column] = False
            result[row] = distance[index]
    return result


def paper_ratio(found: ArrayLike, reference: ArrayLike, distance: float = 1.0) -> float:
    """Share of the reference points with a found peak less than ``distance`` px away (arXiv:2006.15898).

    It never falls when more peaks are reported: compare it with :func:`chance_ratio`. 0 without reference points.
    """
    peaks, points = _positions(found, "found"), _positions(reference, "reference")
    if not len(peaks) or not len(points):
        return 0.0
    nearest, _ = KDTree(peaks).query(points)
    return float(np.mean(nearest < distance))


def chance_ratio(
    found: ArrayLike,
    reference: ArrayLike,
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    distance: float = 1.0,
    shifts: int = _SHIFTS,
) -> float:
    """:func:`paper_ratio` of the same peaks moved as a whole to random places of the field, over its edges.

    Parameters
    ----------
    found, reference : (N, 2) array_like, px
    shape : (int, int), px
        Height and width of the field.
    rng : numpy.random.Generator
    distance : float, px
    shifts : int
        Mean over so many.
    """
    peaks = _positions(found, "found")
    size = np.asarray(shape, np.float64)
    moved = [(peaks + 0.5 + step) % size - 0.5 for step in rng.uniform(0, 1, (shifts, 2)) * size]
    return float(np.mean([paper_ratio(one, reference, distance) for one in moved]))


def detection_scores(
    found: Sequence[ArrayLike],
    truth: Sequence[ArrayLike],
    *,
    shape: tuple[int, int],
    tolerance: float = 1.0,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, float]:
    """Score the positions found in several fields.

    Parameters
    ----------
    found, truth : sequence of (N, 2) array_like, px
        One entry per field.
    shape : (int, int), px
        Height and width of the fields.
    tolerance : float, px
    seed : int
        Of the chance level and the bootstrap.
    resamples : int
        Of the bootstrap over fields.

    Returns
    -------
    dict of float
        ``precision``, ``recall``, ``f1`` of all fields together; ``f1_low``, the 5 % quantile of ``f1`` over
        resampled fields; ``false_positives`` and ``count`` (found) per field; ``error_px``, the mean distance of the
        pairs (NaN without one); ``paper_ratio``, ``chance_ratio``, means over fields; ``fields``.

    Raises
    ------
    InputError
        When there are no fields, or not as many found as true.
    """
    if not len(found) or len(found) != len(truth):
        raise InputError(f"{len(found)} fields of found and {len(truth)} of true positions: expected as many, and some")
    rng = np.random.default_rng([seed, 4])
    pairs = [match(one, true, tolerance) for one, true in zip(found, truth, strict=True)]
    counts = np.array(
        [[len(p), len(np.asarray(f)), len(np.asarray(t))] for p, f, t in zip(pairs, found, truth, strict=True)]
    )
    matched, reported, true = (int(n) for n in counts.sum(axis=0))
    drawn = counts[rng.integers(len(counts), size=(resamples, len(counts)))].sum(axis=1)
    errors = np.concatenate([p.distance for p in pairs])
    chance = [chance_ratio(f, t, shape, rng, distance=tolerance) for f, t in zip(found, truth, strict=True)]
    return {
        "precision": _share(matched, reported, true == 0),
        "recall": _share(matched, true, reported == 0),
        "f1": float(_f1(counts.sum(axis=0))),
        "f1_low": float(np.quantile(_f1(drawn), 0.05)),
        "false_positives": (reported - matched) / len(counts),
        "count": reported / len(counts),
        "error_px": float(errors.mean()) if len(errors) else float("nan"),
        "paper_ratio": float(np.mean([paper_ratio(f, t, tolerance) for f, t in zip(found, truth, strict=True)])),
        "chance_ratio": float(np.mean(chance)),
        "fields": float(len(counts)),
    }


def _f1(counts: NDArray[np.int64]) -> Floats:
    """2 TP / (found + true) of (..., 3) matched, found, true; 1 where there is nothing to find and nothing found."""
    total = counts[..., 1] + counts[..., 2]
    return np.where(total == 0, 1.0, 2 * counts[..., 0] / np.maximum(total, 1))


def _share(part: int, whole: int, otherwise: bool) -> float:
    return part / whole if whole else float(otherwise)


def _assign(rows: Ints, columns: Ints, distance: Floats) -> Floats:
    """Best pairs of one group that is connected by close pairs: (M, 3) found, true, distance."""
    if len(rows) == 1:
        return np.array([[rows[0], columns[0], distance[0]]])
    f, i = np.unique(rows, return_inverse=True)
    t, j = np.unique(columns, return_inverse=True)
    # Worth more than any sum of distances: one pair more always wins.
    far = (distance.max() + 1.0) * (min(len(f), len(t)) + 1)
    cost = np.full((len(f), len(t)), far)
    cost[i, j] = distance
    a, b = linear_sum_assignment(cost)
    good = cost[a, b] < far
    a, b = a[good], b[good]
    return np.stack([f[a], t[b], cost[a, b]], axis=1)


def _close(found: ArrayLike, truth: ArrayLike, tolerance: float) -> tuple[Ints, Ints, Floats]:
    """All pairs within the tolerance: indices and distances."""
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance} px: expected more than 0, e.g. 1")
    first, second = _positions(found, "found"), _positions(truth, "true")
    if not len(first) or not len(second):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    near = KDTree(first).sparse_distance_matrix(KDTree(second), tolerance, output_type="ndarray")
    return near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"].astype(np.float64)


def _positions(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, np.float64)
    if not array.size:
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2 or not np.all(np.isfinite(array)):
        raise InputError(f"{what} positions have shape {array.shape}: expected (number, 2) finite y, x in pixels")
    return array
