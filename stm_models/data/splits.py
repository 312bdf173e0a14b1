"""Splitting a data set so that no simulated state is on two sides and some values are never seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["Split", "split", "strata"]

DISTINCT = 50  # more values than this are taken for continuous
BANDS = 25  # and gathered into so many bands of neighbouring values
SAME = 1e-9  # of the largest magnitude: what differs by less is one value

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Disjoint, sorted row indices that together are all samples.

    Attributes
    ----------
    train, validation : (n,) int64
        By group, each value in both according to its share.
    unseen : (n,) int64
        All samples of the held-out values; empty where there are fewer than 5 values.
    """

    train: Indices
    validation: Indices
    unseen: Indices


def split(
    groups: NDArray[Any],
    values: NDArray[Any],
    *,
    unseen_fraction: float = 0.16,
    validation_fraction: float = 0.2,
    seed: int,
    fold: tuple[int, int] | None = None,
) -> Split:
    """Split samples into train, validation and unseen.

    Unseen values are spread evenly over the sorted distinct values, never the smallest or largest, and do
    not depend on the seed. Where there are more than 50 distinct values (continuous draws) the values are
    gathered into 25 bands of neighbours and whole bands are held out. The other groups are ordered by
    value, at random within one value, and every n-th goes to validation: so each value gives the share of
    its groups, up to rounding.

    Parameters
    ----------
    groups : (S,) int
        Group of each sample.
    values : (S,) float
        What to stratify over; the same for all samples of a group.
    unseen_fraction : float
        Fraction of the distinct values (or bands) to hold out, at least one if above 0.
    validation_fraction : float
        Fraction of the remaining groups, at least one group.
    seed : int
        Decides which groups are in validation.
    fold : (int, int), optional
        Number, from 0, and count of folds: validation is then this fold in place of ``validation_fraction``. The
        folds of one seed share no group and are together all groups that are not unseen.

    Raises
    ------
    InputError
        When fewer than two groups are left to split, or fewer than there are folds.
    ValueError
        For fractions out of range, a fold that does not exist or a group with two values.
    """
    if not 0 <= unseen_fraction < 1 or not 0 < validation_fraction < 1:
        raise ValueError(f"fractions must lie between 0 and 1: {unseen_fraction}, {validation_fraction}")
    if fold is not None and not 0 <= fold[0] < fold[1] >= 2:
        raise ValueError(f"there is no fold {fold[0]} of {fold[1]}")
    names, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    every = strata(values)
    value = every[first]
    if not np.array_equal(value[group_of], every):
        raise ValueError("the samples of one group must share one value to stratify over")

    stratum = value
    count = int(stratum.max(initial=-1)) + 1
    if count > DISTINCT:
        stratum = stratum * BANDS // count
        count = BANDS
    held_out = np.isin(stratum, _interior(count, unseen_fraction))

    rest = np.flatnonzero(~held_out)
    if len(rest) < 2:
        raise InputError(
            f"cannot split {len(names)} simulated states, {len(rest)} besides the unseen ones: "
            "expected at least 2; simulate more states"
        )
    rng = np.random.default_rng(seed)
    rest = rest[np.lexsort((rng.random(len(rest)), value[rest]))]
    if fold is None:
        take = min(max(1, round(validation_fraction * len(rest))), len(rest) - 1)
        places = np.floor((np.arange(take) + rng.random()) * len(rest) / take).astype(np.int64)
    elif fold[1] <= len(rest):
        places = np.arange(fold[0], len(rest), fold[1])
    else:
        raise InputError(
            f"cannot make {fold[1]} folds of {len(rest)} simulated states: a state is never split, so ask for fewer"
        )
    validation = np.zeros(len(names), bool)
    validation[rest[places]] = True
    return Split(
        train=np.flatnonzero(~(held_out | validation)[group_of]),
        validation=np.flatnonzero(validation[group_of]),
        unseen=np.flatnonzero(held_out[group_of]),
    )


def strata(values: NDArray[Any]) -> Indices:
    """Return for each value the number of the distinct one that it is, ascending.

    Neighbours are one where they differ by less than 1e-9 of the largest magnitude, whatever the unit.

    >>> strata(np.array([3e-10, 1e-10, 1e-10 + 1e-25])).tolist()
    [1, 0, 0]
    """
    numbers, place = np.unique(np.asarray(values, np.float64), return_inverse=True)
    largest = np.max(np.abs(numbers), where=np.isfinite(numbers), initial=0)
    apart = ~(np.diff(numbers, prepend=numbers[:1]) <= SAME * largest)  # NaN is apart, too
    return np.cumsum(apart)[place]


def _interior(count: int, fraction: float) -> Indices:
    """Return evenly spread numbers out of 1 ... count - 2."""
    if count < 5 or fraction == 0:
        return np.zeros(0, np.int64)
    take = min(max(1, round(fraction * count)), count - 2)
    return np.floor(np.linspace(0, count - 1, take + 2)[1:-1] + 0.5).astype(np.int64)
