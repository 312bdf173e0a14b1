"""Hartree-Fock with every site and bond of the cell on its own: what `broken` and `collinear` share.

State: densities n_si of each spin channel and, where the Coulomb interaction is on, bond orders
rho_sb = <c_sj† c_si> on one of each pair of a bond and its reverse. Hamiltonian of a channel (eV), with
n_i = n_up + n_dn and the opposite channel s' (the same one where both spins are alike):

    H_s(k) = H0(k) + diag[U (n_s'i - 1/2) + sum_j V_ij (n_j - nbar)] - sum_b V(r_b) rho_sb exp(i k.d_b).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire import bloch_form
from stm_models.physics.moire.branch import Branch, Eigensolver
from stm_models.physics.moire.coulomb import exchange, hartree_matrix
from stm_models.physics.moire.hopping import HOPPING_RANGE, find_bonds, hopping
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.order import nearest_bonds
from stm_models.physics.moire.solution import Settings, Solution, StateArray
from stm_models.physics.moire.symmetry import HALF_TURN, k_mesh

__all__ = ["FullCell"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


class FullCell(Branch):
    """One Bloch matrix per spin channel and k point.

    Attributes
    ----------
    channels : int
        1: both spins alike; 2: up and down.
    real_orders : bool
        Bond orders stay real, and k and -k are one point of the mesh.
    pairs : (B,) int64
        Which of the directed bonds of ``find_bonds`` are listed.
    """

    channels: ClassVar[int]
    real_orders: ClassVar[bool]

    def __init__(self, lattice: Lattice, settings: Settings, eigensolver: Eigensolver) -> None:
        mesh = k_mesh(lattice, settings.k_count, [HALF_TURN] if self.real_orders else ())
        weights = np.tile(mesh.weights / self.channels, self.channels)
        super().__init__(lattice, settings, mesh, weights, eigensolver)
        bonds = find_bonds(lattice, max(HOPPING_RANGE, settings.fock_range))
        ahead = (bonds.cell[:, 0] > 0) | ((bonds.cell[:, 0] == 0) & (bonds.cell[:, 1] > 0))
        self.pairs = np.flatnonzero((bonds.start < bonds.end) | ((bonds.start == bonds.end) & ahead))
        self._start, self._end = bonds.start[self.pairs], bonds.end[self.pairs]
        self._shift = bonds.cell[self.pairs] @ lattice.vectors
        self._hopping = hopping(bonds, settings.interlayer_scale)[self.pairs]
        self._coulomb = settings.dielectric is not None
        if settings.dielectric is not None:
            everywhere = exchange(bonds, settings.dielectric, settings.gate_distance, settings.fock_range)
            self._exchange = everywhere[self.pairs]
            self._hartree = hartree_matrix(lattice, settings.dielectric, settings.gate_distance)
        self._mesh_phases = self._phases(mesh.points)
        self._nearest = np.flatnonzero(nearest_bonds(bonds)[self.pairs])
        vector = bonds.vector[self.pairs[self._nearest]]
        self._direction = np.arctan2(vector[:, 1], vector[:, 0])

    def state_arrays(self) -> dict[str, StateArray]:
        """Describe the densities and, with Coulomb interaction, the bond orders."""
        spin: tuple[str, ...] = ("spin",) if self.channels == 2 else ()
        part: tuple[str, ...] = () if self.real_orders else ("part",)
        spins, parts = (2,) * len(spin), (2,) * len(part)
        size = self.lattice.size
        arrays = {"density": StateArray((*spin, "site"), (*spins, size), "float64", "electrons", "density per spin")}
        if self._coulomb:
            arrays["bond_order"] = StateArray(
                (*spin, "bond", *part), (*spins, len(self.pairs), *parts), "float64", "1",
                "bond order per spin of one of each pair of bonds" + (", real and imaginary part" if part else ""),
            )  # fmt: skip
        return arrays

    def spin_density(self, arrays: Mapping[str, Floats]) -> Floats:
        """See `Branch.spin_density`."""
        return arrays["density"].reshape(self.channels, -1)

    def _state(self, density: Floats, bond_order: Array | None) -> dict[str, Floats]:
        """Name the arrays of densities (channels, N) and bond orders (channels, B)."""
        state = {"density": density}
        if bond_order is not None:
            state["bond_order"] = bond_order if self.real_orders else bond_order.view(np.float64)
        return {name: values.reshape(self.state_arrays()[name].shape) for name, values in state.items()}

    def _bond_orders(self, arrays: Mapping[str, Floats]) -> Array:
        orders = np.ascontiguousarray(arrays["bond_order"])
        return (orders if self.real_orders else orders.view(np.complex128)).reshape(self.channels, -1)

    def _metric(self) -> Floats:
        return np.concatenate(
            [np.full(np.prod(spec.shape), 1.0 + (name == "bond_order")) for name, spec in self.state_arrays().items()]
        )

    def _phases(self, points: Floats) -> list[Array]:
        phases = np.exp(1j * (points @ self._shift.T))
        return [row.real.copy() if np.abs(row.imag).max() < 1e-9 else row for row in phases]

    def _matrices(self, interaction: float, arrays: Mapping[str, Floats], points: Floats | None) -> Iterator[Array]:
        density, size = self.spin_density(arrays), self.lattice.size
        phases = self._mesh_phases if points is None else self._phases(points)
        even = 0.0
        if self._coulomb:
            even = self._hartree @ (2 * (density.mean(axis=0) - density.mean()))
        for channel in range(self.channels):
            onsite = interaction * (density[-1 - channel] - 0.5) + even
            value: Array = self._hopping
            if self._coulomb:
                value = value - self._exchange * self._bond_orders(arrays)[channel]
            for phase in phases:
                matrix = np.empty((size, size), np.result_type(value, phase), order="F")
                bloch_form.assemble(value, phase, self._start, self._end, onsite, matrix)
                yield matrix

    def _moments(self, vectors: list[Array], occupation: Floats) -> dict[str, Floats]:
        density = np.zeros((self.channels, self.lattice.size))
        if not self._coulomb:
            shares = self._shares()
            for channel, _, index, weight in shares:
                density[channel] += weight * bloch_form.site_density(vectors[index], occupation[index])
            return self._state(density, None)
        orders = self._sum_orders(vectors, occupation, np.arange(len(self.pairs)), density)
        return self._state(density, orders.real.copy() if self.real_orders else orders)

    def _shares(self) -> list[tuple[int, int, int, float]]:
        """Channel, k point, block and share of the channel of every block."""
        points = len(self.mesh.weights)
        return [
            (channel, k, channel * points + k, float(self.mesh.weights[k]))
            for channel in range(self.channels)
            for k in range(points)
        ]

    def _sum_orders(
        self, vectors: list[Array], occupation: Floats, listed: NDArray[np.int64], density: Floats
    ) -> NDArray[np.complex128]:
        """Bond orders (channels, listed) of filled bands; adds the densities to ``density``."""
        orders = np.zeros((self.channels, len(listed)), np.complex128)
        start, end = self._start[listed], self._end[listed]
        for channel, k, index, weight in self._shares():
            projector = bloch_form.occupied_projector(vectors[index], occupation[index])
            density[channel] += weight * projector.diagonal().real
            bloch_form.bond_orders(projector, self._mesh_phases[k][listed], start, end, weight, orders[channel])
        return orders

    def _double_counted(self, interaction: float, arrays: Mapping[str, Floats]) -> float:
        density = self.spin_density(arrays)
        energy = interaction * float(density[0] @ density[-1])
        if self._coulomb:
            mean = float(density.mean())
            change = density.mean(axis=0) - mean
            potential = self._hartree @ change
            energy += 2 * float(change @ potential) + 4 * mean * float(potential.sum())
            orders = np.abs(self._bond_orders(arrays)) ** 2
            energy -= 2 / self.channels * float((orders @ self._exchange).sum())
        return energy

    def _site_density(self, vectors: Array, weight: Floats) -> Floats:
        return bloch_form.site_density(vectors, weight)

    def _nearest_orders(self, solution: Solution) -> tuple[Floats, Array]:
        if self._coulomb:
            orders = self._bond_orders(solution.arrays)[:, self._nearest]
        else:
            occupation = self.occupation(solution)
            unused = np.zeros((self.channels, self.lattice.size))
            orders = self._sum_orders(solution.vectors, occupation, self._nearest, unused)
            orders = orders.real if self.real_orders else orders
        return self._direction, orders.mean(axis=0)
