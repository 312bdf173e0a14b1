"""The Fourier step of one image: ours against the direct sum over every point and wave vector.

Full size is the paper's grid, (2*501+1)^2 wave vectors, from as many points as its cell has atoms. Both
sides use one thread; the direct sum is compiled (numba), the way such code is written by hand.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import math
from typing import Any

import numba
import numpy as np
from _timing import arguments, paired, report
from numpy.typing import NDArray

from stm_models.physics.moire.fourier import KGrid, direct_transform, transform

POINTS = 1084
RADIUS = 8.64  # in a: the density of two graphene layers
CHECKED_ROWS = 5


@numba.njit(fastmath=True)
def direct_sum(x: Any, y: Any, w: Any, kx: Any, ky: Any) -> Any:
    """Sum over all points for each wave vector: (ny, nx) complex128."""
    result = np.empty((ky.size, kx.size), np.complex128)
    for row in range(ky.size):
        for column in range(kx.size):
            real = 0.0
            imaginary = 0.0
            for j in range(x.size):
                phase = kx[column] * x[j] + ky[row] * y[j]
                real += w[j] * math.cos(phase)
                imaginary -= w[j] * math.sin(phase)
            result[row, column] = complex(real, imaginary)
    return result


def separable(x: NDArray[Any], y: NDArray[Any], w: NDArray[Any], grid: KGrid) -> NDArray[Any]:
    """Return the sum as one matrix product, possible because the grid is a product of two axes."""
    product: NDArray[Any] = (np.exp(-1j * np.outer(grid.ky, y)) * w) @ np.exp(-1j * np.outer(x, grid.kx))
    return product


def main() -> None:
    """Compare the outputs, then time both sides alternately."""
    options = arguments(__doc__ or "")
    grid = KGrid(201 if options.quick else 1003)
    generator = np.random.default_rng(20)
    r = RADIUS * np.sqrt(generator.random(POINTS))
    angle = 2 * np.pi * generator.random(POINTS)
    x, y, w = r * np.cos(angle), r * np.sin(angle), generator.random(POINTS) + 0.1

    fast = transform(x, y, w, grid)
    reference = direct_sum(x, y, w, grid.kx, grid.ky)
    relative = float(np.max(np.abs(fast - reference)) / np.max(np.abs(reference)))
    small = KGrid(CHECKED_ROWS, grid.kx_max, grid.ky_max)
    slow = direct_transform(x, y, w, small)
    check = float(np.max(np.abs(direct_sum(x, y, w, small.kx, small.ky) - slow)) / np.max(np.abs(slow)))
    assert relative <= 1e-6, f"outputs differ by {relative:.2e} of max|F|"
    assert check <= 1e-9, f"the reference differs from its definition by {check:.2e}"

    times = paired(
        lambda: transform(x, y, w, grid),
        lambda: direct_sum(x, y, w, grid.kx, grid.ky),
        rounds=5 if options.quick else 2,
        repeats=9,
    )
    product = paired(lambda: transform(x, y, w, grid), lambda: separable(x, y, w, grid), rounds=3, repeats=3)
    report(
        "fourier",
        ratios={"direct_sum": times["ratio"]},
        errors={"relative": relative},
        detail={
            "points": POINTS,
            "grid": grid.n,
            "direct_sum": times,
            "matrix_product_ratio": product["ratio"],
            "quick": options.quick,
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
