"""From a config to groups, and from a group to FT-LDOS images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.physics.moire.lattice import Lattice, build, patch
from stm_models.tasks.base import ArraySpec, Group, GroupResult, Plan, Simulator, Variable
from stm_models.tasks.hubbard.config import HubbardSimulation

__all__ = ["VERSION", "input_spec", "plan", "simulator"]

VERSION = "1"
"""Part of a data set's recipe: raised whenever the same config would give other numbers."""

PARAMETERS = (
    Variable("U", "eV", "Hubbard interaction"),
    Variable("filling", "electrons per moiré cell", "filling beyond charge neutrality"),
    Variable("replicate", "1", "chain along U that the state belongs to"),
)
SAMPLES = (
    Variable("bias", "eV", "energy of the LDOS relative to the chemical potential"),
    Variable("broadening", "eV", "standard deviation of the LDOS Gaussian"),
)
SCALARS = (
    Variable("converged", "1", "1 where the self-consistent cycle converged"),
    Variable("iterations", "1", "iterations of the self-consistent cycle"),
    Variable("residual", "1", "largest change of a density in the last iteration"),
    Variable("chemical_potential", "eV", "chemical potential"),
    Variable("energy", "eV per moiré cell", "Hartree-Fock energy"),
    Variable("free_energy", "eV per moiré cell", "energy minus temperature times entropy"),
    Variable("charge_modulation", "electrons", "largest difference of the electron number between two sites"),
)


def input_spec(config: HubbardSimulation, radius: float) -> dict[str, Any]:
    """Describe the network's input: an FT-LDOS image on a k grid, of a disc of ``radius`` (a)."""
    grid = KGrid(config.image_size)
    return {
        "kind": "ft_ldos", "channels": 1, "height": grid.n, "width": grid.n, "dims": ["channel", "y", "x"],
        "unit": "|F|/|F(0)|", "kx_max": grid.kx_max, "ky_max": grid.ky_max,
        "lattice_constant_nm": LATTICE_CONSTANT / 10, "envelope": config.envelope, "radius": radius,
    }  # fmt: skip


def plan(config: HubbardSimulation) -> Plan:
    """Lay the data set out: one chain of warm-started states along U per replicate."""
    from stm_models.physics.moire.hopping import HOPPING_RANGE, find_bonds
    from stm_models.physics.moire.symmetry import orbits

    lattice = build(config.index[0], config.layer_distance[0])
    sites, bonds = orbits(lattice, find_bonds(lattice, max(HOPPING_RANGE, config.fock_range)))
    n = config.image_size
    return Plan(
        chains=tuple(_chain(config, replicate) for replicate in range(config.replicates)),
        samples_per_group=config.draws,
        arrays={
            "image": ArraySpec(
                ("channel", "y", "x"), (1, n, n), "float32", "|F|/|F(0)|",
                "magnitude of the Fourier-transformed LDOS over that at k = 0",
            ),
            "ldos": ArraySpec(
                ("site",), (lattice.size,), "float32", "states/eV", "local density of states of each site", 4
            ),
        },
        state={
            "density": ArraySpec(
                ("site_class",), (len(sites.size),), "float64", "electrons", "density per spin of each class"
            ),
            "bond_order": ArraySpec(
                ("bond_class",), (len(bonds.size),), "float64", "1", "bond order per spin of each class"
            ),
        },
        parameters=PARAMETERS,
        samples=SAMPLES,
        scalars=SCALARS,
        attributes={
            "simulator_version": VERSION,
            "input": input_spec(config, _radius(config, lattice)),
            "structure": {
                "atoms": lattice.size, "twist_angle_deg": lattice.twist_angle,
                "layer_distance_angstrom": config.layer_distance[0],
            },
        },
    )  # fmt: skip


def simulator(config: HubbardSimulation, *, device: str = "cpu") -> Simulator:
    """Build lattice, interaction and transform once; return the function that makes one group."""
    from stm_models.physics.moire.ldos import ldos
    from stm_models.physics.moire.mean_field import MeanField

    lattice = build(config.index[0], config.layer_distance[0])
    field = MeanField(
        lattice, k_count=config.k_mesh, temperature=config.temperature, dielectric=config.dielectric,
        gate_distance=config.gate_distance, fock_range=config.fock_range,
        interlayer_scale=config.interlayer_scale,
    )  # fmt: skip
    radius = _radius(config, lattice)
    points, copies = patch(lattice, radius)
    weight = np.exp(-(points**2).sum(axis=1) / (2 * (config.envelope * radius) ** 2))
    weight = weight * np.where(lattice.layer[copies] == 0, config.bottom_layer, 1.0)
    grid = KGrid(config.image_size)

    def simulate(group: Group, start: Mapping[str, NDArray[Any]] | None) -> GroupResult:
        solution = field.solve(
            group.parameters["U"], group.parameters["filling"],
            None if start is None else (start["density"], start["bond_order"]),
            tolerance=config.tolerance, max_iterations=config.max_iterations,
        )  # fmt: skip
        density = ldos(field, solution, group.samples["bias"], group.samples["broadening"])
        pictures = image(points[:, 0], points[:, 1], density[:, copies] * weight, grid)
        return GroupResult(
            arrays={"image": pictures[:, None], "ldos": density.astype(np.float32)},
            state={"density": solution.density, "bond_order": solution.bond_order},
            scalars={
                "converged": float(solution.converged),
                "iterations": solution.iterations,
                "residual": solution.residual,
                "chemical_potential": solution.chemical_potential,
                "energy": solution.energy,
                "free_energy": solution.free_energy,
                "charge_modulation": 2 * float(np.ptp(solution.density)),
            },
        )

    return simulate


def _radius(config: HubbardSimulation, lattice: Lattice) -> float:
    return config.patch_radius * float(np.linalg.norm(lattice.vectors[0]))


def _chain(config: HubbardSimulation, replicate: int) -> tuple[Group, ...]:
    count = config.interaction_count
    low, high = config.interaction
    rng = np.random.default_rng([config.seed, replicate])
    if config.interaction_sampling == "grid":
        interactions = np.linspace(low, high, count)
    else:
        interactions = np.sort(rng.uniform(low, high, count))
    groups = []
    for position, interaction in enumerate(interactions):
        filling = rng.uniform(*config.filling)
        bias = rng.uniform(*config.bias, config.draws)
        broadening = config.broadening * rng.uniform(*config.broadening_spread, config.draws)
        groups.append(
            Group(
                index=replicate * count + position,
                parameters={
                    "U": float(interaction),
                    "filling": float(filling),
                    "replicate": float(replicate),
                },
                samples={"bias": bias, "broadening": broadening},
            )
        )
    return tuple(groups)
