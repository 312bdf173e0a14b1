"""Painting values at scattered points onto a square raster, as a microscope would see atoms."""

from __future__ import annotations

import math
from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["form_factor", "rasterise"]

Array = NDArray[Any]

_LARGEST = 4096


def rasterise(points: Array, values: Array, *, side: float, pixels: int, width: float) -> NDArray[np.float64]:
    """Return the sum of Gaussians of unit volume at ``points``, times ``values``, on a square raster.

    Parameters
    ----------
    points : (P, 2) float64
        Positions x, y about the middle of the square; those outside it are left out.
    values : (M, P) float64
        One row per map.
    side, width : float
        Side of the square and standard deviation of a Gaussian, in the unit of the points.
    pixels : int
        Along either side.

    Returns
    -------
    (M, pixels, pixels) float64
        At the centres of the pixels; rows run along y, columns along x, both ascending.

    Raises
    ------
    InputError
        For a raster of more than 4096 pixels a side, or lengths that are not positive.

    Notes
    -----
    The Fourier series of the points (a non-uniform FFT) times that of the Gaussian, transformed back: what the
    pixels cannot carry is left out instead of folded back, so the raster's Fourier sum is that of the points
    times `form_factor`, without aliases. Opposite sides are joined. Memory: two complex rasters per map.
    """
    if not 2 <= pixels <= _LARGEST:
        raise InputError(f"a raster of {pixels} pixels a side was asked for: expected 2 to {_LARGEST}")
    if not (0 < side < math.inf and 0 < width < math.inf):
        raise InputError(f"raster: side is {side:g}, width {width:g}; expected positive lengths")
    points, values = np.asarray(points, np.float64), np.asarray(values, np.float64)
    inside = (np.abs(points) <= side / 2).all(axis=1)
    x, y = np.ascontiguousarray(points[inside].T) * (2 * math.pi / side)
    if not inside.any():
        return np.zeros((len(values), pixels, pixels))
    strengths = np.ascontiguousarray(values[:, inside], dtype=np.complex128)
    shape = (pixels, pixels)
    series = finufft.nufft2d1(y, x, strengths, shape, eps=1e-9, isign=-1, nthreads=1).reshape(-1, *shape)
    order = np.arange(pixels) - pixels // 2
    k = 2 * math.pi / side * order
    gaussian = np.exp(-((k * width) ** 2) / 2)
    # The first pixel's centre lies half a pixel within the square's edge.
    first = np.exp(1j * k * (side / pixels - side) / 2)
    if pixels % 2 == 0:
        gaussian[0] = 0  # the one mode without a partner
    series *= np.outer(gaussian * first, gaussian * first)
    raster = np.fft.ifft2(np.fft.ifftshift(series, axes=(1, 2)))
    return raster.real * (pixels / side) ** 2


def form_factor(kx: Array, ky: Array, width: float) -> NDArray[np.float64]:
    """Return the Fourier transform exp(-k^2 width^2 / 2) of one Gaussian on a grid: (len(ky), len(kx))."""
    return np.outer(np.exp(-((ky * width) ** 2) / 2), np.exp(-((kx * width) ** 2) / 2))
