"""Fourier sums over scattered points on a regular grid of wave vectors: LDOS to FT-LDOS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import finufft
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError

__all__ = ["KGrid", "direct_transform", "image", "mirrored", "raster_image", "raster_transform", "transform"]

Array = NDArray[Any]

# finufft's own tolerance bounds the error of a typical, not of every sum: asking for a hundredth costs
# nothing measurable and keeps the promise relative to max|F|.
_MARGIN = 0.01


@dataclass(frozen=True)
class KGrid:
    """A square array of wave vectors, ascending along both axes and symmetric about k = 0.

    The default window is 1.1 times the bounding box of graphene's Bragg hexagon. An even ``n`` has no
    pixel at k = 0.

    Attributes
    ----------
    n : int
        Pixels per axis, at least 2.
    kx_max, ky_max : float
        Last wave vector of each axis in 1/a (a = 2.46 Å, graphene's lattice constant).

    Raises
    ------
    InputError
        For fewer than two pixels or a window that is not positive and finite.
    """

    n: int
    kx_max: float = 1.1 * 2 * math.pi
    ky_max: float = 1.1 * 4 * math.pi / math.sqrt(3)

    def __post_init__(self) -> None:
        if self.n < 2:
            raise InputError(f"k grid: n is {self.n}, expected at least 2 pixels per axis; raise n")
        if not (0 < self.kx_max < math.inf and 0 < self.ky_max < math.inf):
            raise InputError(f"k grid: kx_max, ky_max are {self.kx_max:g}, {self.ky_max:g} 1/a; give positive limits")

    @property
    def kx(self) -> Array:
        """Wave vectors of the columns: (n,) float64 in 1/a."""
        return np.linspace(-self.kx_max, self.kx_max, self.n)

    @property
    def ky(self) -> Array:
        """Wave vectors of the rows: (n,) float64 in 1/a."""
        return np.linspace(-self.ky_max, self.ky_max, self.n)

    @property
    def step(self) -> tuple[float, float]:
        """Distance of neighbouring pixels along kx and ky in 1/a."""
        return 2 * self.kx_max / (self.n - 1), 2 * self.ky_max / (self.n - 1)


def transform(x: ArrayLike, y: ArrayLike, weights: ArrayLike, grid: KGrid, eps: float = 1e-6) -> Array:
    """Return F(kx, ky) = sum_j w_j exp(-i (kx x_j + ky y_j)) on ``grid``.

    Parameters
    ----------
    x, y : (points,) array_like
        Positions in units of a.
    weights : (points,) or (transforms, points) array_like
        Real weights; many vectors on the same points share the sorting and planning.
    grid : KGrid
        Where to evaluate.
    eps : float
        Largest error relative to max|F|.

    Returns
    -------
    (ny, nx) or (transforms, ny, nx) complex128
        Rows are ky, columns kx, both ascending.

    Raises
    ------
    InputError
        When the shapes do not fit, nothing is given, or a number is not real and finite.

    Notes
    -----
    Type-1 non-uniform FFT (Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41, C479, 2019). The
    weights are real, so F(-k) is the conjugate of F(k) and only the upper half is computed. One thread.

    Examples
    --------
    >>> transform([0.0, 1.0], [0.0, 0.0], [2.0, 1.0], KGrid(3, 3.141592653589793, 1.0))[1].real.round(6)
    array([1., 3., 1.])
    """
    upper = _upper_half(*_checked(x, y, weights), grid, eps)
    return mirrored(upper, grid.n, conjugate=True)


def direct_transform(x: ArrayLike, y: ArrayLike, weights: ArrayLike, grid: KGrid) -> Array:
    """Return what `transform` returns, term by term: the slow reference.

    Takes and raises the same; memory is one row of phases, n times the number of points.
    """
    xs, ys, ws = _checked(x, y, weights)
    kx = grid.kx
    result = np.empty((*ws.shape[:-1], grid.n, grid.n), np.complex128)
    for row, ky in enumerate(grid.ky):
        result[..., row, :] = ws @ np.exp(-1j * (np.outer(xs, kx) + (ky * ys)[:, None]))
    return result


def image(x: ArrayLike, y: ArrayLike, weights: ArrayLike, grid: KGrid) -> Array:
    """Return the normalised FT-LDOS image |F(k)| / F(0), F(0) being the sum of the weights.

    Parameters
    ----------
    x, y, weights, grid
        As in `transform`; the weights are LDOS times envelope.

    Returns
    -------
    (ny, nx) or (transforms, ny, nx) float32

    Raises
    ------
    InputError
        As in `transform`, and when F(0) is zero or negative.
    """
    xs, ys, ws = _checked(x, y, weights)
    return _normalised(_upper_half(xs, ys, ws, grid, 1e-6), ws.sum(-1), grid)


def raster_image(x: Array, y: Array, weights: Array, grid: KGrid) -> Array:
    """Return the `image` of points on a raster, where the sum is two products of matrices.

    Parameters
    ----------
    x, y : (X,), (Y,) float64, a
        Of the columns and rows.
    weights : (Y, X) float64
        LDOS times envelope, all finite.
    grid : KGrid

    Returns
    -------
    (ny, nx) float32

    Raises
    ------
    InputError
        When F(0) is zero or negative.
    """
    return _normalised(raster_transform(x, y, weights, grid), weights.sum(), grid)


def raster_transform(x: Array, y: Array, weights: Array, grid: KGrid) -> Array:
    """Return the rows ky >= 0 of the `transform` of points on a raster: ((n + 1) // 2, n) complex128.

    The parameters are those of `raster_image`.
    """
    columns, (cos, sin) = _waves(x.tobytes(), grid, "x"), _waves(y.tobytes(), grid, "y")
    half = weights @ columns[0].T, weights @ columns[1].T
    even, odd = cos @ half[0], sin @ half[1]
    first, second = cos @ half[1], sin @ half[0]
    right, left = even - odd - 1j * (first + second), even + odd - 1j * (second - first)
    result: Array = np.concatenate([left[:, ::-1][:, : grid.n - right.shape[1]], right], axis=1)
    return result


@lru_cache(maxsize=4)
def _waves(places: bytes, grid: KGrid, axis: str) -> tuple[Array, Array]:
    """Cosine and sine (k, places) of the wave vectors k >= 0 along an axis: the same for all maps of a raster."""
    k = (grid.kx if axis == "x" else grid.ky)[grid.n // 2 :]
    phases = np.outer(k, np.frombuffer(places))
    return np.cos(phases), np.sin(phases)


def _normalised(upper: Array, total: Array, grid: KGrid) -> Array:
    """Return |F| / F(0) on the whole grid from F on its rows ky >= 0."""
    if not np.all(total > 0):
        raise InputError(
            f"Fourier image: F(0), the sum of the weights, is {np.min(total):.3g}; expected a positive sum "
            "to normalise with, so remove the offset of the signal"
        )
    modulus = np.abs(upper) / np.asarray(total)[..., None, None]
    return mirrored(modulus.astype(np.float32), grid.n, conjugate=False)


def _upper_half(x: Array, y: Array, weights: Array, grid: KGrid, eps: float) -> Array:
    """Return the rows ky >= 0 of the transform: (..., (n + 1) // 2, n)."""
    step_x, step_y = grid.step
    rows = (grid.n + 1) // 2
    # finufft's modes are whole numbers -m//2..; the grid's are shifted by half a step when n is even.
    shift_x = (grid.n // 2 - (grid.n - 1) / 2) * step_x
    shift_y = (grid.n - rows + rows // 2 - (grid.n - 1) / 2) * step_y
    shifted = weights * np.exp(-1j * (shift_x * x + shift_y * y))
    tolerance = max(eps * _MARGIN, 1e-14)
    result: Array = finufft.nufft2d1(
        step_y * y, step_x * x, shifted, (rows, grid.n), eps=tolerance, isign=-1, nthreads=1
    )
    return result


def mirrored(upper: Array, n: int, *, conjugate: bool) -> Array:
    """Complete the rows ky < 0 of ((n + 1) // 2, n) upper ones from F(-k) = F(k)*."""
    rows = upper.shape[-2]
    result = np.empty((*upper.shape[:-2], n, n), upper.dtype)
    result[..., n - rows :, :] = upper
    lower = upper[..., ::-1, ::-1][..., : n - rows, :]
    if conjugate:
        np.conjugate(lower, out=result[..., : n - rows, :])
    else:
        result[..., : n - rows, :] = lower
    return result


def _checked(x: ArrayLike, y: ArrayLike, weights: ArrayLike) -> tuple[Array, Array, Array]:
    if any(np.iscomplexobj(values) for values in (x, y, weights)):
        raise InputError("Fourier sum: got complex numbers; expected real positions and weights")
    xs, ys, ws = (np.ascontiguousarray(values, np.float64) for values in (x, y, weights))
    if xs.ndim != 1 or xs.shape != ys.shape or ws.ndim not in (1, 2) or ws.shape[-1] != xs.size or not ws.size:
        raise InputError(
            f"Fourier sum: got x {xs.shape}, y {ys.shape}, weights {ws.shape}; expected (points,), (points,) "
            "and (points,) or (transforms, points), at least one of each"
        )
    for name, values in (("x", xs), ("y", ys), ("weights", ws)):
        bad = values.size - np.count_nonzero(np.isfinite(values))
        if bad:
            raise InputError(f"Fourier sum: {bad} of {values.size} {name} are not finite; remove these points")
    return xs, ys, ws
