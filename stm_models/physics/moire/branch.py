"""A branch of the mean field: which states it can hold, and what every one of them can be asked.

A branch keeps its state as named real arrays, diagonalises one matrix per block (a k point, or a k point of
one spin) and fills the bands. Block weights sum to 1 and a full block of weight 1 holds two electrons per
band, so that spin-degenerate and spin-resolved branches share every formula.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from stm_models.errors import InputError, unknown
from stm_models.physics.moire.cycle import fixed_point
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.occupation import chemical_potential, entropy
from stm_models.physics.moire.order import Order, bond_current, charge_gap, moments, nematicity
from stm_models.physics.moire.saddle import End, leave
from stm_models.physics.moire.solution import Settings, Solution, StateArray
from stm_models.physics.moire.symmetry import KMesh

__all__ = ["Branch", "Eigensolver"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Eigensolver = Callable[[Iterable[Array]], tuple[Floats, list[Array]]]


class Branch(ABC):
    """Mean-field solver for one structure; everything that U does not change is made once.

    Attributes
    ----------
    lattice : Lattice
    mesh : KMesh
    weights : (blocks,) float64
        Share of each block.
    eigensolver : callable
        Bands (blocks, N) and eigenvectors of an iterable of matrices, which it may overwrite.
    mixing : sequence of (beta, history)
        Anderson mixing of each attempt. A long history passes the soft modes of moments and random starts; where
        it stalls at a saddle, nearly plain mixing walks off along the unstable direction.
    """

    starts: ClassVar[tuple[str, ...]]
    mixing: ClassVar[tuple[tuple[float, int], ...]] = ((0.6, 20), (0.9, 1), (0.3, 20))

    def __init__(
        self, lattice: Lattice, settings: Settings, mesh: KMesh, weights: Floats, eigensolver: Eigensolver
    ) -> None:
        self.lattice, self.mesh, self.weights = lattice, mesh, weights
        self.temperature = settings.temperature
        self.eigensolver = eigensolver

    def solve(
        self,
        interaction: float,
        filling: float,
        start: str | Mapping[str, Floats],
        *,
        rng: np.random.Generator | None = None,
        tolerance: float = 1e-6,
        max_iterations: int = 60,
        max_attempts: int = 3,
        leave_saddles: bool = True,
    ) -> Solution:
        """Iterate to self-consistency; a stalled cycle is tried again with other mixing.

        Anderson mixing converges to saddles too, where plain iteration would not stay: the symmetric state of I = 9
        that continues the bare bands is one. Such an end is left along its unstable direction, both ways, for the
        lower free energy.

        Parameters
        ----------
        interaction : float
            Hubbard U in eV.
        filling : float
            Electrons per moiré cell added to charge neutrality.
        start : str or mapping
            One of ``starts``, or the arrays of an earlier solution, whose density is rescaled to the filling.
        rng : numpy Generator, optional
            What a random start is drawn from.
        tolerance : float
            On the largest change of any density or bond order.
        max_iterations : int
            Of each attempt.
        max_attempts : int
        leave_saddles : bool
            False keeps a converged state whatever its ``growth``.

        Returns
        -------
        Solution
            Also when it did not converge; check ``converged``.

        Raises
        ------
        InputError
            For an unknown start, a random one without ``rng``, arrays that do not fit, or a filling that the
            bands cannot hold.
        """
        count = self.lattice.size + filling
        guess = self._pack(self._begin(count, start, rng))

        def iterate(state: Floats) -> tuple[Floats, tuple[Floats, list[Array], float]]:
            energies, vectors = self.bands(interaction, self._unpack(state))
            level = chemical_potential(energies, self.weights, count, self.temperature)
            output = self._moments(vectors, self._fermi(energies, level))
            return self._pack(output), (energies, vectors, level)

        def cycle(state: Floats, plain: int) -> End:
            done = fixed_point(
                iterate, state, self._metric(), mixing=self.mixing[:max_attempts], tolerance=tolerance,
                max_iterations=max_iterations, plain=plain,
            )  # fmt: skip
            energies, vectors, level = done.extra
            occupation = self._fermi(energies, level)
            energy = 2 * float(self.weights @ (occupation * energies).sum(axis=1))
            energy -= self._double_counted(interaction, self._unpack(done.guess))
            solution = Solution(
                self._unpack(done.output), energies, vectors, level, energy,
                energy - self.temperature * entropy(occupation, self.weights),
                done.iterations, done.attempts, done.residual, done.converged, done.growth,
            )  # fmt: skip
            return End(solution, done.guess, done.direction)

        end = cycle(guess, 0)
        return leave(end, cycle) if leave_saddles else end.solution

    def bands(self, interaction: float, arrays: Mapping[str, Floats]) -> tuple[Floats, list[Array]]:
        """Diagonalise the mean-field Hamiltonian of a state in every block: (blocks, N) eV, and vectors."""
        return self.eigensolver(self._matrices(interaction, arrays, None))

    def occupation(self, solution: Solution) -> Floats:
        """Fermi function of a solution's bands, (blocks, N) float64."""
        return self._fermi(solution.energies, solution.chemical_potential)

    def band_structure(self, arrays: Mapping[str, Floats], interaction: float, points: Floats) -> Floats:
        """Mean-field bands of a stored state at any k.

        Parameters
        ----------
        arrays : mapping
            As in `Solution.arrays`.
        interaction : float
            Hubbard U in eV.
        points : (P, 2) float64, 1/a

        Returns
        -------
        (P, M) float64, eV
            M = N, or 2 N where the spins differ: up first, then down; rising within each.
        """
        energies, _ = self.eigensolver(self._matrices(interaction, self._checked(arrays), points))
        spins = len(energies) // len(points)
        return np.concatenate(np.split(energies, spins), axis=1)

    def ldos(self, solution: Solution, bias: Floats, broadening: Floats) -> Floats:
        """Spin-summed local density of states at some energies about the chemical potential.

        ldos_i(E) = 2 sum_k w_k sum_m |psi_i|² g((e_m - mu - E)/eta)/eta with a normalised Gaussian g.

        Parameters
        ----------
        solution : Solution
        bias : (T,) float64, eV
            Energies E relative to the chemical potential.
        broadening : (T,) float64, eV
            Standard deviations eta.

        Returns
        -------
        (T, N) float64, states/eV per site
        """
        total = np.zeros((len(bias), self.lattice.size))
        for energies, vectors, weight in zip(solution.energies, solution.vectors, self.weights, strict=True):
            apart = (energies[:, None] - solution.chemical_potential - bias) / broadening
            near = np.flatnonzero(np.abs(apart).min(axis=1) < 9)
            peak = np.exp(-0.5 * apart[near] ** 2) / (math.sqrt(2 * math.pi) * broadening)
            total += 2 * weight * self._site_density(vectors[:, near], peak).T
        return total

    def order(self, solution: Solution) -> Order:
        """Order parameters of a solution."""
        density = self.spin_density(solution.arrays)
        filled = round(2 * float(density.sum()) / len(density))
        direction, orders = self._nearest_orders(solution)
        net, staggered, sublattice, largest = moments(self.lattice, density)
        return Order(
            net_moment=net,
            staggered_moment=staggered,
            sublattice_moment=sublattice,
            largest_moment=largest,
            nematicity=nematicity(direction, orders),
            bond_current=bond_current(orders),
            charge_modulation=float(np.ptp(2 * density.mean(axis=0))),
            gap=charge_gap(solution.energies, len(self.mesh.weights), filled),
        )

    @abstractmethod
    def state_arrays(self) -> dict[str, StateArray]:
        """Describe the arrays of a state, in the order in which they are packed."""

    @abstractmethod
    def spin_density(self, arrays: Mapping[str, Floats]) -> Floats:
        """Electrons per spin on each site: (1, N), or (2, N) for up and down, float64."""

    @abstractmethod
    def _initial(self, count: float, start: str, rng: np.random.Generator | None) -> dict[str, Floats]:
        """Make one of ``starts`` for ``count`` electrons."""

    @abstractmethod
    def _metric(self) -> Floats:
        """Weight of each component of the packed state."""

    @abstractmethod
    def _matrices(self, interaction: float, arrays: Mapping[str, Floats], points: Floats | None) -> Iterator[Array]:
        """Make the Hamiltonian of every block of the mesh, or of some k points: spin outermost."""

    @abstractmethod
    def _moments(self, vectors: list[Array], occupation: Floats) -> dict[str, Floats]:
        """Densities and bond orders of filled bands: the state's arrays."""

    @abstractmethod
    def _double_counted(self, interaction: float, arrays: Mapping[str, Floats]) -> float:
        """Interaction energy of a state that the sum of its band energies counts too much, eV."""

    @abstractmethod
    def _site_density(self, vectors: Array, weight: Floats) -> Floats:
        """Sum_m weight_m |psi_i|²: (N, M) vectors and (M, T) weights to (N, T)."""

    @abstractmethod
    def _nearest_orders(self, solution: Solution) -> tuple[Floats, Array]:
        """Direction in the plane (radians) and bond order, mean over spins, of the nearest intralayer bonds."""

    def _fermi(self, energies: Floats, level: float) -> Floats:
        return expit((level - energies) / self.temperature)

    def _rescaled(self, arrays: Mapping[str, Floats], count: float) -> dict[str, Floats]:
        density = self.spin_density(arrays)
        total = 2 * float(density.sum()) / len(density)
        return {name: values * (count / total) if name == "density" else values for name, values in arrays.items()}

    def _begin(
        self, count: float, start: str | Mapping[str, Floats], rng: np.random.Generator | None
    ) -> Mapping[str, Floats]:
        if not isinstance(start, str):
            return self._rescaled(self._checked(start), count)
        if start not in self.starts:
            raise unknown("start", start, self.starts)
        if start == "random" and rng is None:
            raise InputError("a random start needs a generator: give rng=numpy.random.default_rng([seed, ...])")
        return self._initial(count, start, rng)

    def _checked(self, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
        checked = {}
        for name, spec in self.state_arrays().items():
            values = np.asarray(arrays[name], np.float64) if name in arrays else np.empty(0)
            if values.shape != spec.shape or not np.isfinite(values).all():
                raise InputError(
                    f"state array {name!r} has shape {values.shape if name in arrays else 'missing'} or numbers that "
                    f"are not finite: expected finite {spec.shape} of the same branch and structure; start anew"
                )
            checked[name] = values
        return checked

    def _pack(self, arrays: Mapping[str, Floats]) -> Floats:
        return np.concatenate([arrays[name].ravel() for name in self.state_arrays()])

    def _unpack(self, state: Floats) -> dict[str, Floats]:
        arrays, place = {}, 0
        for name, spec in self.state_arrays().items():
            size = math.prod(spec.shape)
            arrays[name] = state[place : place + size].reshape(spec.shape)
            place += size
        return arrays
