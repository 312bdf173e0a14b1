"""The same Hartree-Fock problem written plainly: what tests and benchmarks hold the fast path against.

Complex Bloch matrices on the whole mesh, every site and directed bond on its own, a cold start, and
linear mixing. Shares only the lattice, the bond list and V(r) with the fast path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from stm_models.physics.moire.coulomb import hartree_rows, screened
from stm_models.physics.moire.hopping import HOPPING_RANGE, bloch_matrix, find_bonds, slater_koster
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.occupation import chemical_potential
from stm_models.physics.moire.symmetry import k_mesh

__all__ = ["PlainSolution", "solve"]


@dataclass(frozen=True)
class PlainSolution:
    """Density per spin (N,), bond orders (B,), and at each of K points with their weights (K,) the N bands.

    Energies (K, N) and the chemical potential are in eV; vectors (K, N, N) are columns.
    """

    density: NDArray[np.float64]
    bond_order: NDArray[np.complex128]
    energies: NDArray[np.float64]
    vectors: NDArray[np.complex128]
    weights: NDArray[np.float64]
    chemical_potential: float
    iterations: int
    converged: bool


def solve(
    lattice: Lattice,
    interaction: float,
    filling: float,
    *,
    k_count: int,
    temperature: float,
    dielectric: float | None,
    gate_distance: float = 10.0,
    mixing: float = 0.3,
    tolerance: float = 1e-6,
    max_iterations: int = 400,
) -> PlainSolution:
    """Iterate from non-interacting bands with x <- (1 - mixing) x + mixing F(x).

    Parameters
    ----------
    lattice : Lattice
    interaction : float
        Hubbard U in eV.
    filling : float
        Electrons per moiré cell added to charge neutrality.
    k_count : int
        All k_count x k_count points of the mesh are diagonalised.
    temperature : float
        kT in eV.
    dielectric : float or None
        Relative dielectric constant; None leaves the long-range Coulomb interaction out.
    gate_distance : float
        Distance of the two metallic gates in nm; without a ``dielectric`` it has no effect.
    mixing : float
        Share of the new densities and bond orders in the next guess.
    tolerance : float
        On the largest change of any density or bond order.
    max_iterations : int

    Returns
    -------
    PlainSolution
        Also when it did not converge; check ``converged``.

    Raises
    ------
    InputError
        For a filling that the bands cannot hold.
    """
    size, count = lattice.size, lattice.size + filling
    bonds = find_bonds(lattice)
    hopping = slater_koster(bonds.vector)
    exchange, hartree = np.zeros(len(hopping)), np.zeros((size, size))
    if dielectric is not None:
        repulsion = screened(bonds.length, dielectric, gate_distance)
        exchange = np.where(bonds.plane <= HOPPING_RANGE + 1e-9, repulsion, 0.0)
        hartree = hartree_rows(lattice, np.arange(size), dielectric, gate_distance)
    mesh = k_mesh(lattice, k_count, operations=())
    density = np.full(size, count / 2 / size)
    bond_order = np.zeros(len(hopping), dtype=complex)
    for iteration in range(1, max_iterations + 1):
        onsite = interaction * (density - 0.5) + hartree @ (2 * (density - density.mean()))
        bands = []
        for k in mesh.points:
            matrix = bloch_matrix(size, bonds, hopping - exchange * bond_order, k) + np.diag(onsite)
            bands.append(np.linalg.eigh(matrix))
        energies = np.array([band[0] for band in bands])
        vectors = np.array([band[1] for band in bands])
        level = chemical_potential(energies, mesh.weights, count, temperature)
        new_density, new_order = np.zeros(size), np.zeros(len(hopping), dtype=complex)
        for k, weight, energy, states in zip(mesh.points, mesh.weights, energies, vectors, strict=True):
            matrix = (states * expit((level - energy) / temperature)) @ states.conj().T
            new_density += weight * matrix.diagonal().real
            phase = np.exp(-1j * (bonds.vector[:, :2] @ k))
            new_order += weight * matrix[bonds.start, bonds.end] * phase
        change = max(np.abs(new_density - density).max(), np.abs(new_order - bond_order).max())
        if change < tolerance or iteration == max_iterations:
            break
        density = (1 - mixing) * density + mixing * new_density
        bond_order = (1 - mixing) * bond_order + mixing * new_order
    return PlainSolution(new_density, new_order, energies, vectors, mesh.weights, level, iteration, change < tolerance)
