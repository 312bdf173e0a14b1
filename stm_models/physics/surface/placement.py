"""Random positions that keep a distance from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.physics.compiled import compiled

__all__ = ["choose", "choose_batch", "place"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_DARTS = 40  # for each position wanted, in each round
_ROUNDS = 40  # further ones only where the first is not enough


def place(
    rng: np.random.Generator, count: int, size: int, margin: float, minimum_distance: float, taken: Floats
) -> Floats:
    """Uniform positions in the frame, or around it where a margin is given: (count, 2) float64, px.

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
    size : int, px
        The frame reaches from -1/2 to size - 1/2.
    margin : float, px
        0 places inside the frame; otherwise outside it, up to this far away.
    minimum_distance : float, px
        From each other and from ``taken``.
    taken : (M, 2) float64, px

    Raises
    ------
    InputError
        When so many do not fit.
    """
    low, high = -0.5 - margin, size - 0.5 + margin
    places = np.empty((len(taken) + count, 2))
    places[: len(taken)] = taken
    found = 0
    for _ in range(_ROUNDS):
        darts = rng.uniform(low, high, (_DARTS * count + _DARTS, 2))
        if margin > 0:
            darts = darts[np.any((darts < -0.5) | (darts >= size - 0.5), axis=1)]
        found += choose(darts, count - found, minimum_distance, places, len(taken) + found)
        if found == count:
            break
    if found < count:
        where = f"around a frame of {size} px, up to {margin:g} px away" if margin else f"in a frame of {size} px"
        raise InputError(
            f"only {found} of {count} positions fit {where} at least {minimum_distance:g} px apart: "
            "ask for fewer impurities, a smaller distance or a larger frame"
        )
    return places[len(taken) :]


@compiled
def choose(darts: Floats, count: int, minimum_distance: float, places: Floats, used: int) -> int:
    """Append the first darts that are far enough from all places before them.

    Parameters
    ----------
    darts : (D, 2) float64, px
        Tried one after the other.
    count : int
        So many are taken at most.
    minimum_distance : float, px
    places : (M, 2) float64, px
        Filled from row ``used`` on; it must have ``used + count`` rows at least.
    used : int
        Number of places that are there already.

    Returns
    -------
    int
        How many were taken.
    """
    square = minimum_distance * minimum_distance
    found = 0
    for d in range(darts.shape[0]):
        if found == count:
            break
        free = True
        for i in range(used + found):
            if (darts[d, 0] - places[i, 0]) ** 2 + (darts[d, 1] - places[i, 1]) ** 2 < square:
                free = False
                break
        if free:
            places[used + found, 0] = darts[d, 0]
            places[used + found, 1] = darts[d, 1]
            found += 1
    return found


@compiled
def choose_batch(darts: Floats, counts: Ints, minimum_distance: float, places: Floats) -> bool:
    """Fill places (S, N, 2) with ``counts`` (S,) of each sample's darts (S, D, 2); False when some do not fit."""
    fit = True
    for s in range(darts.shape[0]):
        fit &= choose(darts[s], counts[s], minimum_distance, places[s], 0) == counts[s]
    return fit
