"""One state from several attempts: which of the self-consistent solutions is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stm_models.physics.moire.saddle import SAME

if TYPE_CHECKING:
    from stm_models.physics.moire.solution import Solution

__all__ = ["Kept", "lowest"]


@dataclass(frozen=True)
class Kept:
    """The solution that stays, and what is known of all candidates.

    Attributes
    ----------
    solution : Solution
    start : int
        The number that came with it.
    spread : float
        Highest less lowest free energy of the converged candidates, eV; 0 for fewer than two.
    iterations, attempts : int
        Of all candidates together.
    """

    solution: Solution
    start: int
    spread: float
    iterations: int
    attempts: int


def lowest(candidates: Iterable[tuple[int, Solution]]) -> Kept:
    """Keep the candidate of the lowest free energy, any converged one before all others.

    Of equals (within 1e-6 eV) the first stays: paramagnet, ferro- and antiferromagnet may be one state.
    No more than two solutions are held at a time.

    Parameters
    ----------
    candidates : iterable of (int, Solution)
        At least one.
    """
    kept: tuple[int, Solution] | None = None
    iterations = attempts = 0
    energies = []
    for start, solution in candidates:
        iterations += solution.iterations
        attempts += solution.attempts
        if solution.converged:
            energies.append(solution.free_energy)
        if kept is None or _better(solution, kept[1]):
            kept = (start, solution)
    if kept is None:
        raise ValueError("a state needs at least one candidate")
    spread = max(energies) - min(energies) if energies else 0.0
    return Kept(kept[1], kept[0], spread, iterations, attempts)


def _better(solution: Solution, than: Solution) -> bool:
    if solution.converged != than.converged:
        return solution.converged
    return solution.free_energy < than.free_energy - SAME
