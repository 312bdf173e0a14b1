"""Simulated maps of a surface state: ours against loops, vectorised numpy and the plain T-matrix sum.

One thread on every side. The samples are the paper's: 8 biases of 20 x 20 pixels, 1 to 8 impurities, Eq. 3 with
noise; each side draws the same random numbers itself. The T-matrix field is 80 x 80 pixels with 60 impurities.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
from typing import Any

import numpy as np
from _timing import arguments, paired, report
from numpy.typing import NDArray
from scipy.special import hankel1

from stm_models.physics.surface.experiment import PIXEL_SIZE, pseudo_experiment
from stm_models.physics.surface.friedel import Draws, draw, generate
from stm_models.physics.surface.friedel_recipe import Recipe
from stm_models.physics.surface.materials import create
from stm_models.physics.surface.scattering import Scatterers, density, pixel_grid

Floats = NDArray[Any]
BIASES = 8
SIZE = 80
IMPURITIES = 60
SEED = 15898


def naive_loops(recipe: Recipe, draws: Draws, k: Floats) -> Floats:
    """Eq. 3 as written: a loop for each sample, bias, pixel and impurity."""
    images = np.empty(draws.normal.shape)
    size = recipe.size
    for s in range(len(images)):
        for v in range(len(k)):
            field = np.zeros((size, size))
            for y in range(size):
                for x in range(size):
                    for w in range(draws.total[s]):
                        r = math.hypot(y - draws.positions[s, w, 0], x - draws.positions[s, w, 1])
                        wave = math.cos(2 * k[v] * r + draws.phase[s, v, w])
                        field[y, x] += draws.amplitude[s, v, w] * wave / (r + recipe.cutoff) ** draws.exponent[s]
            field -= field.mean()
            images[s, v] = field / np.abs(field).max() + draws.noise[s] * draws.normal[s, v]
    return images


def numpy_vectorised(recipe: Recipe, draws: Draws, k: Floats) -> Floats:
    """Eq. 3 with one array operation over biases, impurities and pixels for each sample."""
    grid = pixel_grid(recipe.size)
    images = np.empty(draws.normal.shape, np.float32)
    shape = (len(k), recipe.size, recipe.size)
    for s in range(len(images)):
        n = draws.total[s]
        r = np.linalg.norm(grid - draws.positions[s, :n, None], axis=2)
        waves = np.cos(2 * k[:, None, None] * r + draws.phase[s, :, :n, None])
        weights = draws.amplitude[s, :, :n, None] / (r + recipe.cutoff) ** draws.exponent[s]
        field = (waves * weights).sum(axis=1)
        field -= field.mean(axis=1, keepdims=True)
        field /= np.abs(field).max(axis=1, keepdims=True)
        images[s] = field.reshape(shape) + draws.noise[s] * draws.normal[s]
    return images


def plain_density(points: Floats, scatterers: Scatterers, biases: Floats, k: Floats) -> Floats:
    """Evaluate scipy's Hankel function at each pixel and scatterer, then a dense quadratic form."""
    positions = scatterers.positions
    count = len(positions)
    r = np.linalg.norm(points[:, None] - positions, axis=2)
    between = np.linalg.norm(positions[:, None] - positions, axis=2) + np.eye(count)
    result = np.empty((len(biases), len(points)))
    for v, strength in enumerate(scatterers.strength(biases)):
        off = hankel1(0, k[v] * between)
        np.fill_diagonal(off, 0)
        matrix = np.linalg.solve(np.eye(count) - strength[:, None] * off, np.diag(strength))
        wave = hankel1(0, k[v] * r)
        result[v] = 1 + np.einsum("pi,pi->p", wave @ matrix, wave).real
    return result


def relative(ours: Floats, reference: Floats) -> float:
    """Largest difference over the largest magnitude."""
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


def main() -> None:
    """Compare the outputs, then time all sides alternately."""
    options = arguments(__doc__ or "")
    rounds = 3 if options.quick else 9
    material = create("Au(111)")
    biases = material.biases(BIASES)
    k = material.wave_number(biases, PIXEL_SIZE)
    recipe = Recipe()

    def ours(count: int) -> Floats:
        return generate(recipe, biases, k, count, np.random.default_rng(SEED)).images

    def drawn(count: int) -> Draws:
        return draw(recipe, biases, count, np.random.default_rng(SEED))

    few, many = (4, 64) if options.quick else (16, 256)
    friedel_error = max(
        relative(ours(few), naive_loops(recipe, drawn(few), k)),
        relative(ours(many), numpy_vectorised(recipe, drawn(many), k)),
    )
    loops = paired(lambda: ours(few), lambda: naive_loops(recipe, drawn(few), k), rounds=rounds, repeats=9)
    vectorised = paired(lambda: ours(many), lambda: numpy_vectorised(recipe, drawn(many), k), rounds=rounds, repeats=5)

    rng = np.random.default_rng(SEED)
    positions = rng.uniform(-10, SIZE + 10, (IMPURITIES, 2))
    phases = (rng.normal(-1.1, 0.25, IMPURITIES), rng.normal(-3.2, 1.2, IMPURITIES))
    scatterers = Scatterers(positions, *phases, rng.uniform(0.3, 0.8, IMPURITIES))
    points = pixel_grid(SIZE)
    some = biases[::4] if options.quick else biases
    outgoing = material.complex_wave_number(some, None, PIXEL_SIZE)
    tmatrix_error = relative(
        density(points, scatterers, some, outgoing), plain_density(points, scatterers, some, outgoing)
    )
    tmatrix = paired(
        lambda: density(points, scatterers, some, outgoing),
        lambda: plain_density(points, scatterers, some, outgoing),
        rounds=rounds,
        repeats=5,
    )
    error = max(friedel_error, tmatrix_error)
    assert error <= 1e-6, f"outputs differ by {error:.2e} of the largest value"

    def field(count: int) -> None:
        pseudo_experiment("hard", np.random.default_rng(SEED), biases=count)

    fields = paired(lambda: field(BIASES), lambda: field(24 if options.quick else 126), rounds=1, repeats=5)
    report(
        "surface",
        ratios={
            "naive_loops": loops["ratio"],
            "numpy_vectorised": vectorised["ratio"],
            "tmatrix_numpy": tmatrix["ratio"],
        },
        errors={"relative": error},
        detail={
            "samples_per_s": many / vectorised["ours_s"],
            "samples_per_s_numpy": many / vectorised["reference_s"],
            "samples_per_s_loops": few / loops["reference_s"],
            "tmatrix_s": tmatrix["ours_s"],
            "tmatrix_numpy_s": tmatrix["reference_s"],
            "tmatrix_relative": tmatrix_error,
            "friedel_relative": friedel_error,
            "pseudo_experiment_s": fields["ours_s"],
            "pseudo_experiment_many_biases_s": fields["reference_s"],
            "quick": options.quick,
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
