"""Spin-degenerate Hartree-Fock in the lattice's full symmetry (branch 'sym').

State: densities n_i per spin and bond orders rho_b = <c_j† c_i> per spin, both kept as one number
per class of symmetry-equivalent sites and bonds. Hamiltonian (eV):

    H(k) = H0(k) + diag[U (n_i - 1/2) + sum_j V_ij 2 (n_j - nbar)] - sum_b V(r_b) rho_b exp(i k.d_b).

The real form and the classes hold for states with the lattice's symmetry and time reversal, which the
iteration keeps when it starts from one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire import real_form
from stm_models.physics.moire.branch import Branch, Eigensolver
from stm_models.physics.moire.coulomb import exchange, hartree_rows
from stm_models.physics.moire.hopping import HOPPING_RANGE, find_bonds, hopping
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.order import nearest_bonds
from stm_models.physics.moire.solution import Settings, Solution, StateArray
from stm_models.physics.moire.symmetry import k_mesh, orbits

__all__ = ["Symmetric"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Symmetric(Branch):
    """One real matrix per k point of the irreducible mesh.

    Attributes
    ----------
    sites, bonds : Orbits
        Classes of equivalent sites and bonds.
    """

    starts: ClassVar[tuple[str, ...]] = ("bands",)

    def __init__(self, lattice: Lattice, settings: Settings, eigensolver: Eigensolver) -> None:
        mesh = k_mesh(lattice, settings.k_count)
        super().__init__(lattice, settings, mesh, mesh.weights, eigensolver)
        self.half = lattice.size // 2
        bonds = find_bonds(lattice, max(HOPPING_RANGE, settings.fock_range))
        self.sites, self.bonds = orbits(lattice, bonds)
        used = bonds.start < self.half
        self._start, self._end = bonds.start[used], bonds.end[used]
        self._label, self._vector = self.bonds.label[used], bonds.vector[used, :2]
        self._hopping = hopping(bonds, settings.interlayer_scale)[used]
        self._exchange = exchange(bonds, settings.dielectric, settings.gate_distance, settings.fock_range)[used]
        self._hartree = np.zeros((len(self.sites.size), len(self.sites.size)))
        if settings.dielectric is not None:
            rows = hartree_rows(lattice, self.sites.first, settings.dielectric, settings.gate_distance)
            np.add.at(self._hartree.T, self.sites.label, rows.T)
        self._cos, self._sin = self._phases(mesh.points)
        self._bond_count = np.bincount(self._label, minlength=len(self.bonds.size)).astype(float)
        self._nearest = nearest_bonds(bonds)[used]

    def state_arrays(self) -> dict[str, StateArray]:
        """Describe density and bond orders, one number per class."""
        return {
            "density": StateArray(
                ("site_class",), (len(self.sites.size),), "float64", "electrons", "density per spin of each class"
            ),
            "bond_order": StateArray(
                ("bond_class",), (len(self.bonds.size),), "float64", "1", "bond order per spin of each class"
            ),
        }

    def ldos(self, solution: Solution, bias: Floats, broadening: Floats) -> Floats:
        """See `Branch.ldos`: (T, N) float64, states/eV per site; averages over classes make the reduced mesh whole."""
        values = super().ldos(solution, bias, broadening)
        return self.site_values(np.array([self.class_mean(row[: self.half]) for row in values]))

    def spin_density(self, arrays: Mapping[str, Floats]) -> Floats:
        """See `Branch.spin_density`."""
        return self.site_values(arrays["density"])[None]

    def site_values(self, classes: Floats) -> Floats:
        """Spread values per class of sites (..., classes) over all sites (..., N)."""
        return classes[..., self.sites.label]

    def class_mean(self, half_sites: Floats) -> Floats:
        """Average values on the first half of the sites (N/2,) over each class of sites."""
        label = self.sites.label[: self.half]
        return np.bincount(label, half_sites, len(self.sites.size)) / np.bincount(label)

    def _initial(self, count: float, start: str, rng: np.random.Generator | None) -> dict[str, Floats]:
        even = np.full(len(self.sites.size), count / 2 / self.lattice.size)
        return {"density": even, "bond_order": np.zeros(len(self.bonds.size))}

    def _metric(self) -> Floats:
        return np.concatenate([self.sites.size, self.bonds.size]).astype(float)

    def _phases(self, points: Floats) -> tuple[Floats, Floats]:
        phase = points @ self._vector.T
        return np.cos(phase), np.sin(phase)

    def _matrices(self, interaction: float, arrays: Mapping[str, Floats], points: Floats | None) -> Iterator[Array]:
        classes = interaction * (arrays["density"] - 0.5) + self._hartree @ (2 * self._excess(arrays)[0])
        onsite = classes[self.sites.label[: self.half]]
        value = self._hopping - self._exchange * arrays["bond_order"][self._label]
        for cos, sin in zip(*((self._cos, self._sin) if points is None else self._phases(points)), strict=True):
            # A fresh matrix each time: LAPACK leaves the eigenvectors in it.
            matrix = np.empty((self.lattice.size, self.lattice.size))
            real_form.assemble(value, cos, sin, self._start, self._end, onsite, matrix)
            yield matrix.T

    def _moments(self, vectors: list[Array], occupation: Floats) -> dict[str, Floats]:
        density = np.zeros(self.half)
        bond_order = np.zeros(len(self.bonds.size))
        for index, weight in enumerate(self.weights):
            projector = real_form.occupied_projector(vectors[index], occupation[index])
            diagonal = projector.diagonal()
            density += weight * 0.5 * (diagonal[: self.half] + diagonal[self.half :])
            part = np.zeros(len(self.bonds.size))
            real_form.pair_expectation(
                projector, self._cos[index], self._sin[index], self._start, self._end, self._label, part
            )
            bond_order += weight * part
        return {"density": self.class_mean(density), "bond_order": bond_order / self._bond_count}

    def _double_counted(self, interaction: float, arrays: Mapping[str, Floats]) -> float:
        density, bond_order = arrays["density"], arrays["bond_order"]
        change, mean = self._excess(arrays)
        potential = self._hartree @ change
        return (
            interaction * float(self.sites.size @ density**2)
            + 2 * float(self.sites.size @ (change * potential))
            + 4 * mean * float(self.sites.size @ potential)
            - 2 * float(self._exchange @ bond_order[self._label] ** 2)
        )

    def _site_density(self, vectors: Array, weight: Floats) -> Floats:
        return np.tile(real_form.site_density(vectors, weight), (2, 1))

    def _nearest_orders(self, solution: Solution) -> tuple[Floats, Array]:
        # A bond's image under C2z points the other way, which 2 phi does not tell: half of the bonds will do.
        vector = self._vector[self._nearest]
        return np.arctan2(vector[:, 1], vector[:, 0]), solution.arrays["bond_order"][self._label[self._nearest]]

    def _excess(self, arrays: Mapping[str, Floats]) -> tuple[Floats, float]:
        mean = float(self.sites.size @ arrays["density"]) / self.lattice.size
        return arrays["density"] - mean, mean
