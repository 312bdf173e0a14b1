"""Units and literature constants of twisted bilayer graphene.

Lengths are in units of the graphene lattice constant a, energies in eV, wave vectors in 1/a.
"""

from __future__ import annotations

import math

__all__ = [
    "BOND_LENGTH",
    "COULOMB",
    "DECAY",
    "HOPPING_RANGE",
    "INTERLAYER",
    "LATTICE_CONSTANT",
    "V_PI",
    "V_SIGMA",
]

LATTICE_CONSTANT = 2.46
"""Graphene lattice constant a in Å."""
BOND_LENGTH = 1 / math.sqrt(3)
"""Carbon-carbon distance in a."""
INTERLAYER = 3.35 / LATTICE_CONSTANT
"""Equilibrium layer distance d0 in a."""
DECAY = 0.184
"""Decay length r0 of the Slater-Koster integrals in a (0.453 Å)."""
V_PI = -2.7
"""In-plane nearest-neighbour matrix element in eV (Moon and Koshino, PRB 85, 195458)."""
V_SIGMA = 0.48
"""Interlayer matrix element at d0 in eV (same source)."""
HOPPING_RANGE = 2.5
"""In-plane cut-off of the hopping in a."""
COULOMB = 14.3996 / LATTICE_CONSTANT
"""e²/(4 pi eps0) in eV a."""
