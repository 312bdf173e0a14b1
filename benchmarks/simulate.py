"""Samples of a data set as workers make them, against the same samples made plainly.

Ours is the start of a preset's chain (warm states along U), timed in a fresh process with one thread: Hartree-Fock
in the symmetric real form, LDOS, images. The reference starts every state from non-interacting bands, diagonalises
complex matrices on the whole k mesh and mixes linearly with the share that needs the fewest iterations; both stop
at the same tolerance, and the LDOS that they give is compared. Making the structure and its Coulomb kernel counts
for us and not for the reference. At I = 9 both give the state of lowest free energy: plain iteration does not stay at
the saddle that the preset keeps. Seconds are CPU seconds of the one thread, so that a shared machine counts little.

Where torch sees a GPU, states per minute there against two CPU cores, by the clock.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _chain import Measured, measure, start
from _timing import arguments, report
from numpy.typing import NDArray

from pipelines import settings
from stm_models.physics.moire import plain
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.coulomb import hartree_rows
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.structure import imaged_atoms, structure
from stm_models.tasks.plan import Group

SHARES = (0.8, 0.9, 0.7, 0.6, 1.0, 0.5, 0.3)  # likeliest first: the others stop where they fall behind
MOST_ITERATIONS = 80
MEMORY_GIB = 1.5
LIMITS = {"density": 1e-5, "ldos": 5e-4, "image": 1e-4}  # errors: of the largest LDOS, and of |F| over |F(0)|
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One structure: a preset, and which states of its chain are made plainly too; ours makes all up to there."""

    name: str
    preset: str
    changes: tuple[str, ...]
    compared: tuple[int, ...]


FULL = (Case("I5", "quick", (), (5, 15, 24)), Case("I9", "paper", ("simulate.leave_saddles=true",), (5,)))
QUICK = (Case("I3", "quick", ("simulate.index=3", "simulate.layer_distance=2.75"), (3, 6)),)


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


class Reference:
    """Samples of one structure made plainly."""

    def __init__(self, config: HubbardSimulation, parameters: Any) -> None:
        self.config = config
        self.lattice = structure(parameters)
        self.atoms = imaged_atoms(config, parameters)
        self.settings: dict[str, Any] = {
            "k_count": config.k_mesh, "temperature": config.temperature, "dielectric": config.dielectric,
            "gate_distance": config.gate_distance,
        }  # fmt: skip
        self.branch = create("sym", self.lattice, fock_range=config.fock_range, **self.settings)
        kernel = hartree_rows(self.lattice, np.arange(self.lattice.size), config.dielectric, config.gate_distance)
        plain.hartree_rows = lambda *_: kernel

    def iterations(self, group: Group, share: float, limit: int) -> int | None:
        """Iterations that linear mixing needs, found on the fast path: both map a symmetric state to the same one."""
        given = group.parameters["U"], group.parameters["filling"]
        state: Any = "bands"
        density = np.full(self.lattice.size, (self.lattice.size + given[1]) / 2 / self.lattice.size)
        arrays = {name: np.zeros(spec.shape) for name, spec in self.branch.state_arrays().items()}
        arrays["density"] = density[np.unique(self.branch.sites.label, return_index=True)[1]]
        for iteration in range(1, limit + 1):
            output = self.branch.solve(*given, state, tolerance=0.0, max_iterations=1, max_attempts=1).arrays
            change = max(float(np.abs(output[name] - arrays[name]).max()) for name in arrays)
            if change < self.config.tolerance:
                return iteration
            arrays = {name: (1 - share) * arrays[name] + share * output[name] for name in arrays}
            state = arrays
        return None

    def best_share(self, group: Group) -> tuple[float, dict[str, int]]:
        """Find the share of linear mixing with the fewest iterations."""
        counts: dict[str, int] = {}
        limit = MOST_ITERATIONS
        for share in SHARES:
            count = self.iterations(group, share, limit)
            if count is not None:
                counts[str(share)] = count
                limit = count
        best = min(counts, key=lambda share: counts[share])
        return float(best), counts

    def state(self, group: Group, share: float) -> plain.PlainSolution:
        """Solve one state."""
        solution = plain.solve(
            self.lattice, group.parameters["U"], group.parameters["filling"], mixing=share,
            tolerance=self.config.tolerance, max_iterations=2 * MOST_ITERATIONS, **self.settings,
        )  # fmt: skip
        assert solution.converged, "the reference did not converge"
        return solution

    def samples(self, solution: plain.PlainSolution, group: Group) -> tuple[Floats, Floats]:
        """LDOS (draws, N) and images (draws, y, x) of one state."""
        bias, width = group.samples["bias"], group.samples["broadening"]
        density = np.zeros((len(bias), self.lattice.size))
        for energies, vectors, weight in zip(solution.energies, solution.vectors, solution.weights, strict=True):
            apart = (energies[:, None] - solution.chemical_potential - bias) / width
            peak = np.exp(-0.5 * apart**2) / (math.sqrt(2 * math.pi) * width)
            density += 2 * weight * (np.abs(vectors) ** 2 @ peak).T
        weighted = density[:, self.atoms.copies] * self.atoms.weights
        return density, image(*self.atoms.positions.T, weighted, KGrid(self.config.image_size))


def compare(case: Case) -> dict[str, Any]:
    """Time ours and the reference in turns and hold their samples against each other."""
    loaded = settings.load("hubbard", case.preset, assignments=list(case.changes))
    config = loaded.simulate
    chain = loaded.task.plan(config).chains[0]
    say(f"{case.name}: the reference's structure and its best mixing")
    reference = Reference(config, chain[0].parameters)
    share, tried = reference.best_share(chain[case.compared[-1]])
    say(f"{case.name}: linear mixing needs {tried} iterations by its share")
    ours, theirs, errors = [], [], []
    for number in case.compared:
        group = chain[number]
        begun = time.process_time()
        solution = reference.state(group, share)
        density, pictures = reference.samples(solution, group)
        seconds = time.process_time() - begun
        theirs.append({"U": group.parameters["U"], "iterations": solution.iterations, "cpu_s": seconds})
        say(
            f"{case.name}: U = {group.parameters['U']:.2f} plainly in {seconds:.1f} s, {solution.iterations} iterations"
        )
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "last.npz"
            ours.append(measure(config, number + 1, result=result))
            with np.load(result) as made:
                state = {name: made[f"state_{name}"] for name in reference.branch.state_arrays()}
                errors.append(
                    {
                        "density": worst(reference.branch.spin_density(state)[0], solution.density),
                        "ldos": worst(made["array_ldos"][:, 0], density) / float(density.max()),
                        "image": worst(made["array_image"][:, 0], pictures),
                    }
                )
        assert all(ours[-1].converged), "ours did not converge"
        say(f"{case.name}: ours in {ours[-1].state_s(len(chain)):.2f} s per state")
    state_s = [measured.state_s(len(chain)) for measured in ours]
    ratios = [other["cpu_s"] / own for other, own in zip(theirs, state_s, strict=True)]
    mean = statistics.mean([count for measured in ours for count in measured.iterations[1:]])
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "errors": {name: max(error[name] for error in errors) for name in errors[0]},
        "atoms": reference.lattice.size,
        "k_points": {"ours": len(reference.branch.mesh.weights), "reference": config.k_mesh**2},
        "samples_per_core_minute": 60 * config.draws / statistics.median(state_s),
        "samples_per_state": config.draws,
        "state_cpu_s": statistics.median(state_s),
        "cold_cpu_s": statistics.median(measured.cpu_s[0] for measured in ours),
        "iterations": {"warm": mean, "cold": ours[0].iterations[0]},
        "reference": theirs,
        "reference_share": share,
        "reference_iterations_by_share": tried,
        "ratio_had_the_reference_our_mixing": statistics.median(
            other["cpu_s"] / other["iterations"] * ours[0].iterations[0] / own
            for other, own in zip(theirs, state_s, strict=True)
        ),
        **worker(ours),
    }


def worker(ours: list[Measured]) -> dict[str, float]:
    """Where a worker's time goes while it makes warm states, and how much memory it took."""
    warm = [(inside, all_) for each in ours for inside, all_ in zip(each.lapack_s[1:], each.cpu_s[1:], strict=True)]
    return {
        "lapack_share": sum(inside for inside, _ in warm) / sum(all_ for _, all_ in warm),
        "peak_memory_gib": max(each.peak_gib for each in ours),
    }


def worst(one: Any, other: Any) -> float:
    """Largest difference of two arrays."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).max())


def on_gpu(case: Case) -> dict[str, Any] | None:
    """States per minute of one process with a GPU against two that have one CPU core each, at the same time."""
    import torch

    if not torch.cuda.is_available():
        return None
    config = settings.load("hubbard", case.preset, assignments=list(case.changes)).simulate
    groups = case.compared[-1] + 1
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / f"{name}.npz" for name in ("gpu", "cpu")}
        gpu = measure(config, groups, device="cuda", result=places["gpu"])
        pair = [start(config, groups, result=places["cpu"]), start(config, groups)]
        cpu = [wait() for wait in pair]
        with np.load(places["gpu"]) as one, np.load(places["cpu"]) as other:
            error = worst(one["array_image"], other["array_image"])
    gpu_rate = 60 / statistics.median(gpu.wall_s[1:])
    cpu_rate = sum(60 / statistics.median(each.wall_s[1:]) for each in cpu)
    return {
        "device": torch.cuda.get_device_name(),
        "states_per_minute": {"gpu": gpu_rate, "two CPU cores": cpu_rate},
        "ratio": gpu_rate / cpu_rate,
        "image_error": error,
    }


def main() -> None:
    """Compare every structure; add the GPU where there is one."""
    options = arguments(__doc__ or "")
    cases = QUICK if options.quick else FULL
    found = {case.name: compare(case) for case in cases}
    ratios = {f"reference_{name}": each["ratio"] for name, each in found.items()}
    for name, each in found.items():
        for what, limit in LIMITS.items():
            assert each["errors"][what] < limit, f"{name}: {what} differs by {each['errors'][what]:.2e}"
        ratios[f"over_memory_{name}"] = each["peak_memory_gib"] / MEMORY_GIB
    detail: dict[str, Any] = {**found, "quick": options.quick}
    gpu = on_gpu(cases[-1])
    if gpu:
        ratios["gpu"] = gpu["ratio"]
        detail["gpu"] = gpu
    report(
        "simulate",
        ratios=ratios,
        errors={key: max(each["errors"][key] for each in found.values()) for key in ("density", "ldos", "image")},
        detail=detail,
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
