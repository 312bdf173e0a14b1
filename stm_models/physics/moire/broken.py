"""Hartree-Fock of both spins alike with complex bond orders (branch 'broken').

Every spatial symmetry, and time reversal, may break: random Hermitian starts find several solutions, whose
free energies tell which one is the ground state.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.full_cell import FullCell

__all__ = ["Broken"]

_DENSITY = 0.1
_BOND_ORDER = 0.15


class Broken(FullCell):
    """Spin-degenerate, no spatial symmetry, k and -k apart."""

    starts: ClassVar[tuple[str, ...]] = ("random",)
    channels: ClassVar[int] = 1
    real_orders: ClassVar[bool] = False

    def _initial(self, count: float, start: str, rng: np.random.Generator | None) -> dict[str, NDArray[np.float64]]:
        assert rng is not None  # noqa: S101
        size, bonds = self.lattice.size, len(self.pairs)
        density = count / 2 / size + _DENSITY * rng.normal(size=size)
        density += (count / 2 - density.sum()) / size
        if not self._coulomb:
            return self._state(density, None)
        # The Hermitian part of independent numbers on a bond and its reverse.
        parts = _BOND_ORDER / math.sqrt(2) * rng.normal(size=(2, bonds))
        return self._state(density, parts[0] + 1j * parts[1])
