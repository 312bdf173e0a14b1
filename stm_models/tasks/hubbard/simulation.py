"""From a config to groups, and from a group to FT-LDOS images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.physics.moire.lattice import twist_angle
from stm_models.physics.moire.symmetry import symmetries
from stm_models.tasks.hubbard.candidates import Kept, lowest
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.structure import (
    GEOMETRY,
    ImagedAtoms,
    disc_radius,
    imaged_atoms,
    moire_vectors,
    structure,
)
from stm_models.tasks.hubbard.variables import ORDER, PARAMETERS, SAMPLES, SCALARS, possible_targets
from stm_models.tasks.plan import ArraySpec, Group, GroupResult, Plan, Simulator

if TYPE_CHECKING:
    from stm_models.physics.moire.branch import Branch
    from stm_models.physics.moire.solution import Solution, StateArray

__all__ = ["VERSION", "WARM", "input_spec", "plan", "simulator", "solver", "states"]

VERSION = "2"
"""Part of a data set's recipe: raised whenever the same config would give other numbers."""
WARM = "warm"
"""Name, beside the starts, of the candidate that begins at the chain's previous state."""
_STRUCTURES_KEPT = 2
_SOLVED = ("branch", "interlayer_scale", "dielectric", "gate_distance", "fock_range", "temperature", "k_mesh")

Arrays = Mapping[str, NDArray[Any]]


def input_spec(config: HubbardSimulation) -> dict[str, Any]:
    """Describe the network's input: FT-LDOS images on a k grid, one channel per energy (eV).

    A real map stands for an energy within ``energy_tolerance``: the broadening, or half the distance of two channels.
    ``moire`` are the moiré lattice's reciprocal vectors (1/a), None where structures differ.
    """
    grid = KGrid(config.image_size)
    tolerance = min([config.broadening, *(np.diff(config.energies) / 2)])
    return {
        "kind": "ft_ldos", "channels": len(config.energies), "height": grid.n, "width": grid.n,
        "dims": ["channel", "y", "x"], "unit": "|F|/|F(0)|", "energies": list(config.energies),
        "energy_tolerance": float(tolerance), "kx_max": grid.kx_max, "ky_max": grid.ky_max,
        "lattice_constant_nm": LATTICE_CONSTANT / 10, "envelope": config.envelope, "radius": disc_radius(config),
        "moire": moire_vectors(config),
    }  # fmt: skip


def plan(config: HubbardSimulation) -> Plan:
    """Lay the data set out: one chain of states along U, in one structure, per replicate."""
    chains = _same_together(_chain(config, replicate) for replicate in range(config.replicates))
    n, channels, sites = config.image_size, len(config.energies), _sites(max(config.index))
    return Plan(
        chains=chains,
        samples_per_group=config.draws,
        arrays={
            "image": ArraySpec(
                ("channel", "y", "x"), (channels, n, n), "float32", "|F|/|F(0)|",
                "magnitude of the Fourier-transformed LDOS over that at k = 0, one channel per energy",
            ),
            "ldos": ArraySpec(
                ("energy", "site"), (channels, sites), "float32", "states/eV",
                "local density of states of each site of the cell, zero beyond its last", 4,
            ),
        },
        state=_largest_state(config, chains),
        parameters=PARAMETERS,
        samples=SAMPLES,
        scalars=SCALARS,
        attributes={
            "simulator_version": VERSION,
            "input": input_spec(config),
            "structures": [
                {"index": index, "atoms": _sites(index), "twist_angle_deg": twist_angle(index)}
                for index in sorted(config.index)
            ],
            "starts": [*config.starts, WARM],
            "possible_targets": possible_targets(config),
        },
    )  # fmt: skip


def states(config: HubbardSimulation) -> frozenset[tuple[Any, ...]]:
    """Return what decides each state, whatever seed and chain: equations, U, filling and structure."""
    of = tuple(getattr(config, name) for name in _SOLVED)
    chains = (_chain(config, replicate) for replicate in range(config.replicates))
    return frozenset((*of, *_decisive(group)) for chain in chains for group in chain)


def simulator(config: HubbardSimulation, *, device: str = "cpu") -> Simulator:
    """Return the function that makes one group; what a structure needs is built when its first group comes."""
    grid = KGrid(config.image_size)
    energies = np.asarray(config.energies)
    most = _sites(max(config.index))

    @lru_cache(maxsize=_STRUCTURES_KEPT)
    def scene(geometry: tuple[float, ...]) -> tuple[Branch, ImagedAtoms]:
        parameters = dict(zip(GEOMETRY, geometry, strict=True))
        return solver(config, parameters, device), imaged_atoms(config, parameters)

    def simulate(group: Group, start: Arrays | None) -> GroupResult:
        branch, atoms = scene(tuple(group.parameters[name] for name in GEOMETRY))
        kept = lowest(_candidates(config, branch, group, start))
        solution = kept.solution
        bias = (group.samples["bias"][:, None] + energies).ravel()
        broadening = np.repeat(group.samples["broadening"], len(energies))
        density = branch.ldos(solution, bias, broadening)
        weighted = density[:, atoms.copies] * atoms.weights
        _check_signal(weighted, bias, broadening)
        pictures = image(atoms.positions[:, 0], atoms.positions[:, 1], weighted, grid)
        shape = (config.draws, len(energies))
        return GroupResult(
            arrays={
                "image": pictures.reshape(*shape, grid.n, grid.n),
                "ldos": _filled_up(density.astype(np.float32).reshape(*shape, -1), most),
            },
            state=dict(solution.arrays),
            scalars=_scalars(branch, kept),
        )

    return simulate


def solver(config: HubbardSimulation, parameters: Mapping[str, float], device: str = "cpu") -> Branch:
    """Make the solver of the config's branch for the structure that ``parameters`` say."""
    from stm_models.physics.moire.branches import create

    return create(
        config.branch, structure(parameters), k_count=config.k_mesh, temperature=config.temperature,
        dielectric=config.dielectric, gate_distance=config.gate_distance, fock_range=config.fock_range,
        interlayer_scale=config.interlayer_scale, device=device,
    )  # fmt: skip


def _candidates(
    config: HubbardSimulation, branch: Branch, group: Group, state: Arrays | None
) -> Iterator[tuple[int, Solution]]:
    """Solve from each start in turn, and from the predecessor's state: beside several starts, instead of one."""
    numbers = list(range(len(config.starts)))
    if config.keep == "cycle":
        numbers = [int(group.parameters["replicate"]) % len(numbers)]
    starts: dict[int, str | Arrays] = {number: config.starts[number] for number in numbers}
    if config.warm and state is not None:
        previous = {name: state[name][tuple(map(slice, spec.shape))] for name, spec in branch.state_arrays().items()}
        starts = {**(starts if len(starts) > 1 else {}), len(config.starts): previous}
    for number, start in starts.items():
        yield number, branch.solve(
            group.parameters["U"], group.parameters["filling"], start,
            rng=np.random.default_rng([config.seed, group.index, number, 2]),
            tolerance=config.tolerance, max_iterations=config.max_iterations, leave_saddles=config.leave_saddles,
        )  # fmt: skip


def _scalars(branch: Branch, kept: Kept) -> dict[str, float]:
    solution, order = kept.solution, branch.order(kept.solution)
    return {
        "converged": float(solution.converged),
        "start": float(kept.start),
        "iterations": float(kept.iterations),
        "attempts": float(kept.attempts),
        "residual": solution.residual,
        "growth": solution.growth,
        "chemical_potential": solution.chemical_potential,
        "energy": solution.energy,
        "free_energy": solution.free_energy,
        "energy_spread": kept.spread,
        **{variable.name: float(getattr(order, variable.name)) for variable in ORDER},
    }


def _check_signal(weighted: NDArray[Any], bias: NDArray[Any], broadening: NDArray[Any]) -> None:
    dark = np.flatnonzero(~(weighted.sum(axis=1) > 0))
    if len(dark):
        raise InputError(
            f"there is no state within nine broadenings ({broadening[dark[0]]:.3g} eV each) of {bias[dark[0]]:.3g} eV "
            "from the chemical potential, so no image: give a larger simulate.broadening, or energies outside the gap"
        )


def _filled_up(values: NDArray[Any], size: int) -> NDArray[Any]:
    result = np.zeros((*values.shape[:-1], size), values.dtype)
    result[..., : values.shape[-1]] = values
    return result


def _sites(index: int) -> int:
    return 4 * (3 * index**2 + 3 * index + 1)


def _largest_state(config: HubbardSimulation, chains: tuple[tuple[Group, ...], ...]) -> dict[str, ArraySpec]:
    """Describe state arrays that hold the state of every structure: what they are as large as is cell and symmetry."""
    first: dict[tuple[float, int], Mapping[str, float]] = {}
    for chain in chains:
        of = chain[0].parameters
        first.setdefault((of["index"], len(symmetries(structure(of)))), of)
    found = [solver(config, parameters).state_arrays() for parameters in first.values()]
    return {name: _largest([arrays[name] for arrays in found]) for name in found[0]}


def _largest(arrays: list[StateArray]) -> ArraySpec:
    shape = tuple(np.max([array.shape for array in arrays], axis=0).tolist())
    return ArraySpec(arrays[0].dims, shape, arrays[0].dtype, arrays[0].unit, arrays[0].description)


def _chain(config: HubbardSimulation, replicate: int) -> tuple[Group, ...]:
    count = config.interaction_count
    low, high = config.interaction
    rng = np.random.default_rng([config.seed, replicate])
    if config.interaction_sampling == "grid":
        interactions = np.linspace(low, high, count)
    else:
        interactions = np.sort(rng.uniform(low, high, count))
    shared = {"replicate": float(replicate), **_geometry(config, replicate)}
    groups = []
    for position, interaction in enumerate(interactions):
        filling = rng.uniform(*config.filling)
        bias = rng.uniform(*config.bias, config.draws)
        broadening = config.broadening * rng.uniform(*config.broadening_spread, config.draws)
        groups.append(
            Group(
                index=replicate * count + position,
                parameters={"U": float(interaction), "filling": float(filling), **shared},
                samples={"bias": bias, "broadening": broadening},
            )
        )
    return tuple(groups)


def _decisive(group: Group) -> tuple[float, ...]:
    return tuple(group.parameters[name] for name in ("U", "filling", *GEOMETRY))


def _same_together(chains: Iterable[tuple[Group, ...]]) -> tuple[tuple[Group, ...], ...]:
    """Number the states: where U, filling and structure are equal it is one, for other starts may end in it too."""
    first: dict[tuple[float, ...], int] = {}
    return tuple(
        tuple(replace(group, state=first.setdefault(_decisive(group), group.index)) for group in chain)
        for chain in chains
    )


def _geometry(config: HubbardSimulation, replicate: int) -> dict[str, float]:
    # A stream of its own: a range of structures leaves fillings and biases as they are without it.
    rng = np.random.default_rng([config.seed, replicate, 1])
    turn = replicate // (config.kinds // len(config.index))
    index = config.index[turn % len(config.index)]
    return {
        "index": float(index),
        "layer_distance": float(rng.uniform(*config.layer_distance)),
        "strain": float(rng.uniform(*config.strain)),
        "strain_angle": float(rng.uniform(*config.strain_angle)),
        "sites": float(_sites(index)),
    }
