"""The branches of the mean field by name."""

from __future__ import annotations

from stm_models.errors import unknown
from stm_models.physics.moire.branch import Branch
from stm_models.physics.moire.broken import Broken
from stm_models.physics.moire.collinear import Collinear
from stm_models.physics.moire.eigen import eigensolver
from stm_models.physics.moire.hopping import HOPPING_RANGE
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.solution import Settings
from stm_models.physics.moire.sym import Symmetric

__all__ = ["BRANCHES", "create"]

BRANCHES: dict[str, type[Symmetric | Broken | Collinear]] = {
    "sym": Symmetric,
    "broken": Broken,
    "collinear": Collinear,
}


def create(
    name: str,
    lattice: Lattice,
    *,
    k_count: int,
    temperature: float,
    dielectric: float | None,
    gate_distance: float = 10.0,
    fock_range: float = HOPPING_RANGE,
    interlayer_scale: float = 1.0,
    device: str = "cpu",
) -> Branch:
    """Make the solver of one branch for one structure.

    Parameters
    ----------
    name : str
        ``sym`` (the lattice's symmetry and both spins alike), ``broken`` (complex bond orders, both spins alike)
        or ``collinear`` (spins up and down).
    lattice : Lattice
    k_count, temperature, dielectric, gate_distance, fock_range, interlayer_scale
        See :class:`~stm_models.physics.moire.solution.Settings`.
    device : str
        Where the eigenproblems are solved: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

    Raises
    ------
    InputError
        For an unknown name or device, or a GPU that is not there.
    """
    if name not in BRANCHES:
        raise unknown("branch", name, BRANCHES)
    settings = Settings(k_count, temperature, dielectric, gate_distance, fock_range, interlayer_scale)
    return BRANCHES[name](lattice, settings, eigensolver(device))
