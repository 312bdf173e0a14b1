"""One self-consistent state: ours against the plain solver, and one iteration against LAPACK alone.

Ours is a warm chain along U in the symmetric real form with Anderson mixing, as data sets are made. The
plain solver starts every U from non-interacting bands, diagonalises complex matrices on the whole mesh and
mixes linearly, with the best of several shares, chosen in this run. Both use one BLAS thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from _timing import arguments, paired, report
from scipy.linalg import lapack

from stm_models.physics.moire import plain
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.lattice import Lattice, build
from stm_models.physics.moire.solution import Solution
from stm_models.physics.moire.sym import Symmetric

TOLERANCE = 1e-6
SHARES = (0.5, 0.7, 1.0, 0.3, 0.2, 0.1)  # likeliest first: the others stop where they fall behind
STEPS = 3
CHAIN = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
COMPARED = (0.5, 2.5)
SETTINGS: dict[str, Any] = {"k_count": 3, "temperature": 0.01, "dielectric": 10.0}


def warm_chain(field: Symmetric) -> list[Solution]:
    """Solve along U, each state started from the one before; the first one is cold."""
    solutions: list[Solution] = []
    for interaction in CHAIN:
        start = solutions[-1].arrays if solutions else "bands"
        solutions.append(field.solve(interaction, 0.0, start, tolerance=TOLERANCE))
    assert all(solution.converged for solution in solutions)
    return solutions


def best_share(lattice: Lattice) -> tuple[float, dict[str, int]]:
    """Find the share of linear mixing with which the plain solver needs the fewest iterations at one U."""
    best, counts, limit = 0.0, {}, 100
    for share in SHARES:
        done = plain.solve(
            lattice, COMPARED[-1], 0.0, mixing=share, tolerance=TOLERANCE, max_iterations=limit, **SETTINGS
        )
        if done.converged:
            best, limit = share, done.iterations
            counts[str(share)] = done.iterations
    return best, counts


def iteration_over_lapack(field: Symmetric, solution: Solution, rounds: int) -> dict[str, Any]:
    """Pair whole iterations with dsyevd alone on the very matrices that they diagonalise."""
    matrices = hamiltonians(field, solution)
    stock = [matrix.copy(order="F") for _ in range(STEPS * (rounds + 1)) for matrix in matrices]

    def iterations() -> None:
        field.solve(CHAIN[-1], 0.0, solution.arrays, tolerance=0.0, max_iterations=STEPS, max_attempts=1)

    def eigensolver() -> None:
        for _ in range(STEPS * len(matrices)):
            lapack.dsyevd(stock.pop(), compute_v=1, lower=1, overwrite_a=1)

    iterations()
    eigensolver()
    times = paired(eigensolver, iterations, rounds=rounds)
    return {
        "over": times["ratio"],
        "ratios": times["ratios"],
        "lapack_s": times["ours_s"] / STEPS,
        "iteration_s": times["reference_s"] / STEPS,
    }


def hamiltonians(field: Symmetric, solution: Solution) -> list[np.ndarray]:
    """Catch the matrices on their way into the eigensolver."""
    caught = []
    original = field.eigensolver

    def catch(matrices: Iterable[np.ndarray]) -> Any:
        caught.extend(matrices)
        return original([matrix.copy(order="F") for matrix in caught])

    field.eigensolver = catch
    try:
        field.bands(CHAIN[-1], solution.arrays)
    finally:
        field.eigensolver = original
    return caught


def main() -> None:
    """Compare the densities, then time both sides alternately."""
    options = arguments(__doc__ or "")
    lattice = build(3, 2.75) if options.quick else build(5, 2.74)
    field = create("sym", lattice, **SETTINGS)
    assert isinstance(field, Symmetric)
    share, tried = best_share(lattice)

    ours = dict(zip(CHAIN, warm_chain(field), strict=True))
    errors, ratios, iterations = [], [], []
    for interaction in COMPARED:
        start = time.perf_counter()
        theirs = plain.solve(
            lattice, interaction, 0.0, mixing=share, tolerance=TOLERANCE, max_iterations=200, **SETTINGS
        )
        plain_s = time.perf_counter() - start
        start = time.perf_counter()
        chain = warm_chain(field)
        ours_s = (time.perf_counter() - start) / len(chain)
        assert theirs.converged
        errors.append(float(np.abs(field.spin_density(ours[interaction].arrays)[0] - theirs.density).max()))
        ratios.append(plain_s / ours_s)
        iterations.append({"U": interaction, "plain": theirs.iterations, "plain_s": plain_s, "ours_s": ours_s})
    assert max(errors) < 1e-5, f"densities differ by {max(errors):.2e}"

    over = iteration_over_lapack(field, ours[CHAIN[-1]], 5 if options.quick else 15)
    report(
        "scf",
        ratios={"plain_scf": statistics.median(ratios), "over_lapack": over["over"]},
        errors={"density": max(errors)},
        detail={
            "index": lattice.index,
            "atoms": lattice.size,
            "k_points": {"ours": len(field.mesh.weights), "plain": SETTINGS["k_count"] ** 2},
            "iterations_per_state": statistics.mean(solution.iterations for solution in ours.values()),
            "plain": iterations,
            "linear_mixing_iterations": tried,
            "iteration": over,
            "quick": options.quick,
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
