"""Leaving a converged state that plain iteration would leave, for a lower one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.solution import Solution

__all__ = ["SAME", "End", "leave"]

Floats = NDArray[np.float64]

_SADDLE = 1.05  # growth; a soft mode near 1 is no reason to look further
_KICK = 0.05  # largest change of a density or bond order
_DESCENT = 8  # plain iterations after it
_DESCENTS = 2  # saddles left in a row
SAME = 1e-6
"""eV per cell: the cycle's tolerance enters the free energy squared, so less is no difference."""


@dataclass(frozen=True)
class End:
    """Where a cycle ended.

    Attributes
    ----------
    solution : Solution
    place : (n,) float64
        The packed state.
    direction : (n,) float64
        Along which the state is least stable, its largest component 1.
    """

    solution: Solution
    place: Floats
    direction: Floats


def leave(end: End, cycle: Callable[[Floats, int], End]) -> Solution:
    """Follow the unstable direction of a saddle both ways and keep the lowest free energy.

    Parameters
    ----------
    end : End
        Any: one that is stable or did not converge is kept as it is.
    cycle : callable (state, plain)
        Iterates from a packed state to its end, with so many plain iterations first.

    Returns
    -------
    Solution
        Its iterations and attempts are those of all cycles together.
    """
    for _ in range(_DESCENTS):
        if not end.solution.converged or end.solution.growth < _SADDLE:
            break
        tried = [end, *(cycle(end.place + sign * _KICK * end.direction, _DESCENT) for sign in (1, -1))]
        best = end
        for other in tried[1:]:
            if other.solution.converged and other.solution.free_energy < best.solution.free_energy - SAME:
                best = other
        stays = best is end
        effort = {name: sum(getattr(one.solution, name) for one in tried) for name in ("iterations", "attempts")}
        end = replace(best, solution=replace(best.solution, **effort))
        if stays:
            break
    return end.solution
