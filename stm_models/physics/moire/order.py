"""Order parameters of a mean-field state.

All are zero, or C6-symmetric, in the symmetric branch without strain: what is not tells of a broken symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.hopping import Bonds
from stm_models.physics.moire.lattice import Lattice

__all__ = ["Order", "bond_current", "charge_gap", "moments", "nearest_bonds", "nematicity"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """Order parameters.

    Attributes
    ----------
    net_moment : float, mu_B per moiré cell
        |sum_i m_i| with m = n_up - n_dn.
    staggered_moment : float, mu_B per moiré cell
        |sum_i sign_i m_i|, the sign changing with sublattice and with layer.
    sublattice_moment : float, mu_B per moiré cell
        The same, the sign changing with the sublattice alone.
    largest_moment : float, mu_B
        Largest |m_i| of a site.
    nematicity : float
        |sum_b Re rho_b exp(2 i phi_b)| / sum_b |rho_b| over the nearest bonds within a layer, phi_b being a
        bond's direction: 0 where a threefold axis is kept, 1 where all bonds but one direction vanish and no
        current flows. A bond and its reverse, whose order is the conjugate, have the same real part.
    bond_current : float
        Largest |Im rho_b| of these bonds: 0 where time reversal is kept, else charge circulates.
    charge_modulation : float, electrons
        Largest difference of the electron number between two sites.
    gap : float, eV
        Lowest empty less highest full level on the k mesh, 0 for a metal. Full are as many levels per k as
        there are electrons per moiré cell, to the nearest whole number; both spins count.
    """

    net_moment: float
    staggered_moment: float
    sublattice_moment: float
    largest_moment: float
    nematicity: float
    bond_current: float
    charge_modulation: float
    gap: float


def moments(lattice: Lattice, density: Floats) -> tuple[float, float, float, float]:
    """Net, staggered, sublattice and largest moment in mu_B, see :class:`Order`.

    Parameters
    ----------
    lattice : Lattice
    density : (1 or 2, N) float64, electrons
        Per spin: of both alike, or of up and down.
    """
    moment = density[0] - density[-1]
    sublattice = 1.0 - 2 * lattice.sublattice
    layer = 1.0 - 2 * lattice.layer
    sums = [abs(float(moment @ sign)) for sign in (np.ones(lattice.size), sublattice * layer, sublattice)]
    return sums[0], sums[1], sums[2], float(np.abs(moment).max())


def nearest_bonds(bonds: Bonds) -> NDArray[np.bool_]:
    """Mark the nearest-neighbour bonds within a layer: (B,) bool."""
    return (bonds.plane < 0.8) & (np.abs(bonds.vector[:, 2]) < 1e-9)


def nematicity(direction: Floats, bond_order: NDArray[np.complex128] | Floats) -> float:
    """Return |sum_b Re rho_b exp(2 i phi_b)| / sum_b |rho_b|, 0 to 1, of directions (B,) in rad and orders (B,)."""
    return float(abs((bond_order.real * np.exp(2j * direction)).sum()) / np.abs(bond_order).sum())


def bond_current(bond_order: NDArray[np.complex128] | Floats) -> float:
    """Return the largest imaginary part, without its sign or a unit, of bond orders (B,) per spin."""
    return float(np.abs(bond_order.imag).max())


def charge_gap(energies: Floats, points: int, filled: int) -> float:
    """Gap above ``filled`` levels per k point, both spins counted; never below 0.

    Parameters
    ----------
    energies : (blocks, N) float64, eV
        One block per k point for spin-degenerate bands, else all k points of spin up, then of spin down.
    points : int
        k points.
    filled : int
    """
    spins = energies.reshape(-1, points, energies.shape[1])
    levels = np.sort(np.concatenate([spins[0], spins[-1]], axis=1), axis=1)
    if not 0 < filled < levels.shape[1]:
        return 0.0
    return max(0.0, float(levels[:, filled].min() - levels[:, filled - 1].max()))
