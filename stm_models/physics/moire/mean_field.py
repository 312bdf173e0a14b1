"""Spin-degenerate self-consistent Hartree-Fock of the bilayer in its full symmetry (branch 'sym').

State: densities n_i per spin and bond orders rho_b = <c_j† c_i> per spin, both kept as one number
per class of symmetry-equivalent sites and bonds. Hamiltonian (eV):

    H(k) = H0(k) + diag[U (n_i - 1/2) + sum_j V_ij 2 (n_j - nbar)] - sum_b V(r_b) rho_b exp(i k.d_b).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, xlogy

from stm_models.errors import InputError
from stm_models.physics.moire import real_form
from stm_models.physics.moire.coulomb import hartree_rows, screened
from stm_models.physics.moire.eigen import diagonalise
from stm_models.physics.moire.hopping import HOPPING_RANGE, find_bonds, slater_koster
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.mixing import Anderson
from stm_models.physics.moire.symmetry import k_mesh, orbits

__all__ = ["MeanField", "Solution", "chemical_potential"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """A self-consistent state, or the last iterate of one that did not converge.

    Attributes
    ----------
    density : (site classes,) float64
        Electrons per spin on each class of sites.
    bond_order : (bond classes,) float64
    energies : (nk, N) float64, eV
        Mean-field bands at the reduced k points.
    vectors : list of (N, N) float64
        Eigenvectors in the real basis, one array per k point.
    chemical_potential, energy, free_energy : float, eV
        Energies are per moiré cell.
    residual : float
        Largest change of a density or bond order in the last iteration.
    """

    density: Floats
    bond_order: Floats
    energies: Floats
    vectors: list[Floats]
    chemical_potential: float
    energy: float
    free_energy: float
    iterations: int
    residual: float
    converged: bool


class MeanField:
    """Hartree-Fock solver for one structure; everything that U does not change is made once.

    Parameters
    ----------
    lattice : Lattice
    k_count : int
        Mesh of k_count x k_count points.
    temperature : float
        kT in eV.
    dielectric : float or None
        Relative dielectric constant; None leaves the long-range Coulomb interaction out.
    gate_distance : float
        nm.
    fock_range : float
        In-plane reach of the exchange in a.
    interlayer_scale : float
        Factor on interlayer hopping.

    Notes
    -----
    The real form and the symmetric classes hold for states with the full D6 symmetry and time reversal,
    which the iteration keeps when it starts from one.
    """

    def __init__(
        self,
        lattice: Lattice,
        *,
        k_count: int,
        temperature: float,
        dielectric: float | None,
        gate_distance: float = 10.0,
        fock_range: float = HOPPING_RANGE,
        interlayer_scale: float = 1.0,
    ) -> None:
        self.lattice, self.temperature = lattice, temperature
        self.half = lattice.size // 2
        bonds = find_bonds(lattice, max(HOPPING_RANGE, fock_range))
        self.sites, self.bonds = orbits(lattice, bonds)
        used = bonds.start < self.half
        self._start, self._end = bonds.start[used], bonds.end[used]
        self._label = self.bonds.label[used]
        plane = np.hypot(bonds.vector[used, 0], bonds.vector[used, 1])
        hopping = slater_koster(bonds.vector[used], interlayer_scale)
        self._hopping = np.where(plane <= HOPPING_RANGE + 1e-9, hopping, 0.0)
        self._exchange = np.zeros(len(self._start))
        self._hartree = np.zeros((len(self.sites.size), len(self.sites.size)))
        if dielectric is not None:
            repulsion = screened(bonds.length[used], dielectric, gate_distance)
            self._exchange = np.where(plane <= fock_range + 1e-9, repulsion, 0.0)
            rows = hartree_rows(lattice, self.sites.first, dielectric, gate_distance)
            np.add.at(self._hartree.T, self.sites.label, rows.T)
        self.mesh = k_mesh(lattice, k_count)
        phase = self.mesh.points @ bonds.vector[used, :2].T
        self._cos, self._sin = np.cos(phase), np.sin(phase)
        self._bond_count = np.bincount(self._label, minlength=len(self.bonds.size)).astype(float)

    def solve(
        self,
        interaction: float,
        filling: float,
        start: tuple[Floats, Floats] | None = None,
        *,
        tolerance: float = 1e-6,
        max_iterations: int = 60,
    ) -> Solution:
        """Iterate to self-consistency.

        Parameters
        ----------
        interaction : float
            Hubbard U in eV.
        filling : float
            Electrons per moiré cell added to charge neutrality.
        start : (density, bond_order) or None
            An earlier solution; its density is rescaled to the new filling. None starts from the
            non-interacting bands.
        tolerance : float
            On the largest change of any density or bond order.
        max_iterations : int

        Returns
        -------
        Solution
            Also when it did not converge; check ``converged``.
        """
        count = self.lattice.size + filling
        sites = len(self.sites.size)
        if start is None:
            even = np.full(sites, count / 2 / self.lattice.size)
            guess = np.concatenate([even, np.zeros(len(self.bonds.size))])
        else:
            density = start[0] * (count / 2 / (self.sites.size @ start[0]))
            guess = np.concatenate([density, start[1]])
        mixer = Anderson(np.concatenate([self.sites.size, self.bonds.size]).astype(float))
        for iteration in range(1, max_iterations + 1):
            energies, vectors = self.bands(interaction, guess[:sites], guess[sites:])
            level = chemical_potential(energies, self.mesh.weights, count, self.temperature)
            occupation = expit((level - energies) / self.temperature)
            output = self._moments(vectors, occupation)
            residual = float(np.abs(output - guess).max())
            if residual < tolerance or iteration == max_iterations:
                break
            guess = mixer.step(guess, output - guess)
        energy = self._energy(interaction, guess, energies, occupation)
        disorder = xlogy(occupation, occupation) + xlogy(1 - occupation, 1 - occupation)
        entropy = -2 * float(self.mesh.weights @ disorder.sum(axis=1))
        return Solution(
            output[:sites], output[sites:], energies, vectors, level, energy,
            energy - self.temperature * entropy, iteration, residual, residual < tolerance,
        )  # fmt: skip

    def bands(self, interaction: float, density: Floats, bond_order: Floats) -> tuple[Floats, list[Floats]]:
        """Diagonalise the mean-field Hamiltonian of a state at every k point of the mesh."""
        onsite = self._onsite(interaction, density)
        value = self._hopping - self._exchange * bond_order[self._label]
        energies = np.empty((len(self.mesh.weights), self.lattice.size))
        vectors = []
        for index in range(len(self.mesh.weights)):
            # A fresh matrix each time: LAPACK leaves the eigenvectors in it.
            matrix = np.empty((self.lattice.size, self.lattice.size))
            real_form.assemble(value, self._cos[index], self._sin[index], self._start, self._end, onsite, matrix)
            energies[index], states = diagonalise(matrix.T)
            vectors.append(states)
        return energies, vectors

    def site_values(self, classes: Floats) -> Floats:
        """Spread values per class of sites (..., classes) over all sites (..., N)."""
        return classes[..., self.sites.label]

    def class_mean(self, half_sites: Floats) -> Floats:
        """Average values on the first half of the sites (N/2,) over each class of sites."""
        label = self.sites.label[: self.half]
        return np.bincount(label, half_sites, len(self.sites.size)) / np.bincount(label)

    def _onsite(self, interaction: float, density: Floats) -> Floats:
        mean = float(self.sites.size @ density) / self.lattice.size
        classes = interaction * (density - 0.5) + self._hartree @ (2 * (density - mean))
        return classes[self.sites.label[: self.half]]

    def _moments(self, vectors: list[Floats], occupation: Floats) -> Floats:
        density = np.zeros(self.half)
        bond_order = np.zeros(len(self.bonds.size))
        for index, weight in enumerate(self.mesh.weights):
            projector = real_form.occupied_projector(vectors[index], occupation[index])
            diagonal = projector.diagonal()
            density += weight * 0.5 * (diagonal[: self.half] + diagonal[self.half :])
            part = np.zeros(len(self.bonds.size))
            real_form.pair_expectation(
                projector, self._cos[index], self._sin[index], self._start, self._end, self._label, part
            )
            bond_order += weight * part
        return np.concatenate([self.class_mean(density), bond_order / self._bond_count])

    def _energy(self, interaction: float, state: Floats, energies: Floats, occupation: Floats) -> float:
        density, bond_order = np.split(state, [len(self.sites.size)])
        mean = float(self.sites.size @ density) / self.lattice.size
        change = density - mean
        potential = self._hartree @ change
        exchange = 2 * float(self._exchange @ bond_order[self._label] ** 2)
        return (
            2 * float(self.mesh.weights @ (occupation * energies).sum(axis=1))
            - interaction * float(self.sites.size @ density**2)
            - 2 * float(self.sites.size @ (change * potential))
            - 4 * mean * float(self.sites.size @ potential)
            + exchange
        )


def chemical_potential(energies: Floats, weights: Floats, count: float, temperature: float) -> float:
    """Level at which the bands hold ``count`` electrons (both spins), to 1e-12.

    Parameters
    ----------
    energies : (nk, M) float64, eV
    weights : (nk,) float64
    count : float
    temperature : float
        kT in eV.

    Returns
    -------
    float, eV

    Raises
    ------
    InputError
        When the bands cannot hold that many electrons.
    """
    room = 2 * energies.shape[1]
    if not 0 < count < room:
        raise InputError(
            f"cannot place {count:g} electrons in {room // 2} bands: expected above 0 and below {room}; "
            "bring the filling nearer to 0"
        )

    def excess(level: float) -> float:
        return 2 * float(weights @ expit((level - energies) / temperature).sum(axis=1)) - count

    margin = 60 * temperature
    return float(brentq(excess, energies.min() - margin, energies.max() + margin, xtol=1e-14, rtol=1e-15))
