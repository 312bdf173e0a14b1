"""What only this task can draw of a data set: bands, density of states, maps of the LDOS, marked wave vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.config import validate
from stm_models.data.opened import OpenDataSet
from stm_models.errors import InputError
from stm_models.figures import moire
from stm_models.physics.moire.branch import Branch
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.lattice import Lattice
from stm_models.sampling import evenly
from stm_models.signal.similarity import levels
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.simulation import solver
from stm_models.tasks.hubbard.structure import GEOMETRY, imaged_atoms, structure
from stm_models.tasks.outputs import Pictures

__all__ = ["marks", "pictures"]

Floats = NDArray[np.float64]
Drawn = tuple[Any, Mapping[str, Any]]

PATH = ("Γ", "M", "K", "Γ")
_LARGE = 700  # atoms from which one diagonalisation takes a good part of a second
_SIDE = 8  # bands shown on each side of the middle
_NM = LATTICE_CONSTANT / 10


def marks(attributes: Mapping[str, Any], row: Mapping[str, float]) -> dict[str, Floats]:
    """Return the first moiré and graphene Bragg vectors of one sample's structure, (P, 2) float64, 1/a.

    Nothing when the structure is not known, as in a data set of pictures from elsewhere.
    """
    try:
        lattice = structure(row)
    except InputError:
        return {}
    graphene = np.concatenate([_hexagon(reciprocal) for reciprocal in _graphene_reciprocal(lattice)])
    return {
        "first moiré Bragg vectors": _hexagon(lattice.reciprocal),
        "graphene Bragg vectors of both layers": graphene,
    }


def pictures(data: OpenDataSet) -> Pictures:
    """Draw the bands, the density of states and the LDOS of a few states of one structure, spread over U."""
    figures: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    states = _States(data)
    drawings: dict[str, Callable[[_States], Drawn]] = {
        "bands": _bands, "density_of_states": _density_of_states, "ldos_map": _ldos_map,
    }  # fmt: skip
    for name, draw in drawings.items():
        try:
            figures[name], numbers[name] = draw(states)
        except InputError as error:
            skipped[name] = str(error)
    return Pictures(figures, numbers, skipped)


@dataclass
class _States:
    """A few samples of one structure, and the solver that can ask their states."""

    data: OpenDataSet

    @cached_property
    def config(self) -> HubbardSimulation:
        if "config" not in self.data.attributes:
            raise InputError("the data set does not say how it was simulated: expected its attribute 'config'")
        return validate(HubbardSimulation, self.data.attributes["config"], "the data set's config")

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        known = self.data.coordinates
        missing = [name for name in GEOMETRY if name not in known]
        if missing:
            raise InputError(f"the structure is not known: the data set has no {', '.join(missing)}")
        candidates = np.flatnonzero(known["converged"])
        for name in GEOMETRY:
            candidates = candidates[known[name][candidates] == known[name][candidates[0]]]
        interaction, level = levels(known["U"][candidates], most=len(candidates))
        atoms = structure(self.data.row(int(candidates[0]))).size
        chosen = evenly(np.arange(len(interaction)), 3 if atoms > _LARGE else 4)
        return [
            {**self.data.row(sample), "sample": sample}
            for sample in (int(candidates[np.argmax(level == number)]) for number in chosen)
        ]

    @cached_property
    def lattice(self) -> Lattice:
        return structure(self.rows[0])

    @cached_property
    def branch(self) -> Branch:
        if not self.data.has_states:
            raise InputError("the data set holds no simulated states: simulate it with `stm simulate`")
        return solver(self.config, self.rows[0])

    @cached_property
    def arrays(self) -> list[dict[str, Floats]]:
        """The stored state of each row; a store of several structures pads smaller ones."""
        specs = self.branch.state_arrays()
        images = int(self.data.attributes["samples_per_group"])
        stored = [self.data.state(int(row["sample"]) // images) for row in self.rows]
        return [
            {name: state[name][tuple(slice(length) for length in spec.shape)] for name, spec in specs.items()}
            for state in stored
        ]

    @cached_property
    def energies(self) -> list[tuple[Floats, ...]]:
        """Bands along the path from the chemical potential: one (P, N) array per spin, for each row."""
        result = []
        for row, arrays in zip(self.rows, self.arrays, strict=True):
            found = self.branch.band_structure(arrays, row["U"], self.path[0]) - row["chemical_potential"]
            result.append(tuple(np.split(found, found.shape[1] // self.lattice.size, axis=1)))
        return result

    @cached_property
    def path(self) -> tuple[Floats, Floats, dict[float, str]]:
        """Points (P, 2) and their distance along the path (P,) in 1/a, and the corners' names by distance."""
        between = 20 if self.lattice.size < 400 else 8
        corners = [self.lattice.high_symmetry()[name] for name in PATH]
        points = [corners[0][None]]
        for start, end in pairwise(corners):
            points.append(start + (end - start) * (np.arange(1, between + 1) / between)[:, None])
        whole = np.concatenate(points)
        distance = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(whole, axis=0), axis=1))])
        return whole, distance, {float(distance[i * between]): name for i, name in enumerate(PATH)}

    @cached_property
    def window(self) -> float:
        """Energies to show about the chemical potential, eV: up to where the outermost of the central bands begin."""
        middle = self.lattice.size // 2
        below, above = max(0, middle - _SIDE), min(middle + _SIDE, self.lattice.size) - 1
        reach = [
            max(abs(float(spin[:, below].max())), abs(float(spin[:, above].min())))
            for spins in self.energies
            for spin in spins
        ]
        return max(reach)

    def title(self, row: Mapping[str, float]) -> str:
        return f"U = {row['U']:.3g} eV, ν = {row['filling']:+.2g}"


def _bands(states: _States) -> Drawn:
    points, distance, ticks = states.path
    shown = [moire.Bands(states.title(row), found) for row, found in zip(states.rows, states.energies, strict=True)]
    middle = states.lattice.size // 2
    first = max(0, middle - _SIDE)
    numbers = {
        "path": "".join(PATH), "corners": [{"name": name, "distance": place} for place, name in ticks.items()],
        "points_per_a": points.tolist(), "distance_per_a": distance.tolist(), "first_band": first,
        "states": [
            {
                **_about(row), "chemical_potential_eV": row["chemical_potential"],
                # Central bands from the chemical potential: per spin, per k point.
                "energies_eV": [np.round(spin[:, first : middle + _SIDE], 9).tolist() for spin in found],
            }
            for row, found in zip(states.rows, states.energies, strict=True)
        ],
    }  # fmt: skip
    return moire.bands(shown, distance, ticks, states.window), numbers


def _density_of_states(states: _States) -> Drawn:
    branch, config = states.branch, states.config
    energy = np.linspace(-states.window, states.window, 301)
    densities = []
    for row, arrays in zip(states.rows, states.arrays, strict=True):
        # Eigenvectors are not stored: one more iteration from the converged state makes them.
        solution = branch.solve(
            row["U"], row["filling"], arrays, tolerance=config.tolerance,
            max_iterations=config.max_iterations, max_attempts=1, leave_saddles=config.leave_saddles,
        )  # fmt: skip
        spread = np.full(len(energy), config.broadening)
        densities.append(branch.ldos(solution, energy, spread).sum(axis=1))
    levels_ = [row["chemical_potential"] for row in states.rows]
    figure = moire.densities_of_states(
        [f"U = {row['U']:.3g} eV" for row in states.rows], energy, np.array(densities),
        broadening=config.broadening, potentials=levels_,
    )  # fmt: skip
    numbers = {
        "energy_eV": np.round(energy, 9).tolist(), "broadening_eV": config.broadening,
        "states": [
            {**_about(row), "chemical_potential_eV": level, "states_per_eV_and_cell": np.round(density, 6).tolist()}
            for row, level, density in zip(states.rows, levels_, densities, strict=True)
        ],
    }  # fmt: skip
    return figure, numbers


def _ldos_map(states: _States) -> Drawn:
    if "ldos" not in states.data.arrays:
        raise InputError("the data set holds no LDOS of its atoms: simulate it with `stm simulate`")
    if "point_x" in states.data.arrays:
        return _map_of_points(states.data)
    atoms = imaged_atoms(states.data.attributes, states.rows[0])
    upper = states.lattice.layer[atoms.copies] == 1
    points = atoms.positions[upper] * _NM
    stored = states.data.read("ldos", np.array([row["sample"] for row in states.rows], np.int64))
    energies = np.asarray(states.config.energies)
    channel = int(np.argmin(np.abs(energies)))
    values = [density[channel, atoms.copies[upper]] for density in stored]
    length = float(np.linalg.norm(states.lattice.vectors[0])) * _NM
    # At least the ring of atoms about the rotation axis.
    middle = np.hypot(points[:, 0], points[:, 1]) < max(0.2 * length, 0.65 * _NM)
    numbers = {
        "energy_from_bias_eV": float(energies[channel]), "atoms": len(points), "radius_nm": atoms.radius * _NM,
        "moire_length_nm": length,
        "states": [
            {
                **_about(row), "bias_eV": row["bias"], "lowest": float(value.min()), "highest": float(value.max()),
                "mean": float(value.mean()), "AA_over_mean": float(value[middle].mean() / value.mean()),
            }
            for row, value in zip(states.rows, values, strict=True)
        ],
    }  # fmt: skip
    figure = moire.ldos_maps(
        [states.title(row) for row in states.rows], [points] * len(values), values,
        label="LDOS of the upper layer (states/eV)",
    )  # fmt: skip
    return figure, numbers


def _map_of_points(data: OpenDataSet) -> Drawn:
    """Draw imported LDOS files: their own points, of which no layer is known."""
    samples = data.spread("U", most=4)
    stored = {name: data.read(name, samples) for name in ("point_x", "point_y", "ldos")}
    rows = [data.row(int(sample)) for sample in samples]
    points, values = [], []
    for x, y, density, row in zip(*stored.values(), rows, strict=True):
        count = round(row["points"])  # the rest is padding
        points.append(np.stack([x[:count], y[:count]], axis=1) * _NM)
        values.append(density[:count])
    states = [
        {"sample": int(sample), "U_eV": row["U"], "points": len(value), "lowest": float(value.min()),
         "highest": float(value.max()), "mean": float(value.mean())}
        for sample, row, value in zip(samples, rows, values, strict=True)
    ]  # fmt: skip
    figure = moire.ldos_maps([f"U = {row['U']:.3g} eV" for row in rows], points, values, label="LDOS as imported")
    return figure, {"states": states}


def _about(row: Mapping[str, float]) -> dict[str, Any]:
    about = {"sample": int(row["sample"]), "group": int(row["group"]), "U_eV": row["U"], "filling": row["filling"]}
    return about | {name: row[name] for name in GEOMETRY}


def _hexagon(reciprocal: Floats) -> Floats:
    """The six shortest of the vectors that two reciprocal vectors span, (6, 2)."""
    m, n = np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij")
    vectors = np.stack([m.ravel(), n.ravel()], axis=1) @ reciprocal
    return vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")[1:7]]


def _graphene_reciprocal(lattice: Lattice) -> list[Floats]:
    """Reciprocal vectors of both layers, strained as they are, each (2, 2) with rows in 1/a.

    The moiré vectors are whole multiples of each layer's own: (I, I+1) and its turn by 60 degrees below,
    (I+1, I) and its turn above.
    """
    i = lattice.index
    multiples = [np.array([[i, i + 1], [-(i + 1), 2 * i + 1]]), np.array([[i + 1, i], [-i, 2 * i + 1]])]
    layers = [np.linalg.solve(whole.astype(float), lattice.vectors) for whole in multiples]
    return [2 * np.pi * np.linalg.inv(vectors).T for vectors in layers]
