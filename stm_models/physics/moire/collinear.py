"""Unrestricted Hartree-Fock of spins up and down (branch 'collinear').

Bond orders of each spin are real, so k and -k stay equivalent; any pattern of moments may form.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.full_cell import FullCell
from stm_models.physics.moire.occupation import chemical_potential

__all__ = ["Collinear"]

Floats = NDArray[np.float64]
_MOMENT = 0.3
_SEED = 4.0


class Collinear(FullCell):
    """Two spin channels, no spatial symmetry.

    Starts: ``pm`` no moment, ``fm`` the same on all sites, ``af`` changing sign with sublattice and layer,
    ``sublattice`` with the sublattice alone, ``stripe`` as ``af`` times cos(G1.r), ``random`` signs. With
    Coulomb interaction the bond orders start from bands that feel this pattern through 4 eV of on-site repulsion:
    at a small U the moments would otherwise be forgotten before the exchange has seen them.
    """

    starts: ClassVar[tuple[str, ...]] = ("pm", "fm", "af", "sublattice", "stripe", "random")
    channels: ClassVar[int] = 2
    real_orders: ClassVar[bool] = True

    def _initial(self, count: float, start: str, rng: np.random.Generator | None) -> dict[str, Floats]:
        moment = _MOMENT * self._pattern(start, rng)
        density = count / 2 / self.lattice.size + np.array([moment, -moment]) / 2
        if not self._coulomb:
            return self._state(density, None)
        energies, vectors = self.bands(_SEED, self._state(density, np.zeros((2, len(self.pairs)))))
        level = chemical_potential(energies, self.weights, count, self.temperature)
        return self._moments(vectors, self._fermi(energies, level)) | self._state(density, None)

    def _pattern(self, start: str, rng: np.random.Generator | None) -> Floats:
        lattice = self.lattice
        sublattice, layer = 1.0 - 2 * lattice.sublattice, 1.0 - 2 * lattice.layer
        if start == "random":
            assert rng is not None  # noqa: S101
            return rng.choice([-1.0, 1.0], lattice.size)
        wave = np.cos(lattice.positions[:, :2] @ lattice.reciprocal[0])
        return {
            "pm": np.zeros(lattice.size),
            "fm": np.ones(lattice.size),
            "af": sublattice * layer,
            "sublattice": sublattice,
            "stripe": sublattice * layer * wave,
        }[start]
