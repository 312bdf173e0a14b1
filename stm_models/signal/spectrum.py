"""Fourier transform of one measured map, to look at: mean removed, Hann window."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid, transform
from stm_models.tasks.inputs import Axes, RawMap

__all__ = ["peaks", "spectrum"]

Floats = NDArray[np.float64]
_POINTS_GRID = 257  # odd: one pixel is k = 0
_NM = 10 / LATTICE_CONSTANT  # one nm in units of a


def spectrum(raw: RawMap, channel: int = 0) -> tuple[Floats, Axes]:
    """Transform one channel of a raster or of scattered points.

    Parameters
    ----------
    raw : RawMap
    channel : int

    Returns
    -------
    magnitude : (ky, kx) float64
        |F| over the sum of the window, in the map's unit: a wave A cos(q r) gives a peak of A/2.
    axes : Axes
        Wave vectors 2 pi / wavelength in 1/nm; without a size in radians per pixel.

    Notes
    -----
    A raster is tapered by the product of two Hann windows and transformed up to its Nyquist vectors; scattered
    points by a Hann window of their distance from the middle, on graphene's Bragg window.
    """
    if raw.points is not None:
        return _of_points(raw, channel)
    values = raw.values[channel]
    rows, columns = values.shape
    window = np.outer(_hann(rows), _hann(columns))
    tapered = (values - values.mean()) * window
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(tapered))) / window.sum()
    if raw.size_nm is None:
        steps, unit = (1.0, 1.0), "rad/pixel"
    else:
        steps, unit = (raw.size_nm[0] / rows, raw.size_nm[1] / columns), "1/nm"
    y0, y1 = _edges(rows, steps[0])
    x0, x1 = _edges(columns, steps[1])
    return magnitude, Axes((x0, x1, y0, y1), (f"kx ({unit})", f"ky ({unit})"))


def peaks(magnitude: Floats, axes: Axes, most: int = 6) -> list[dict[str, float]]:
    """List the strongest local maxima, one of each pair k and -k, away from k = 0.

    Returns
    -------
    list of {kx, ky, magnitude}
        The strongest first; kx and ky in the unit of ``axes``. Waves longer than a third of the field, which the
        window spreads about k = 0, are left out.
    """
    ky, kx = (_centres(magnitude.shape[axis], axes.extent[2 - 2 * axis : 4 - 2 * axis]) for axis in (0, 1))
    from_zero = np.hypot(ky[:, None] / (ky[1] - ky[0]), kx[None, :] / (kx[1] - kx[0]))
    half = (ky[:, None] > 1e-9) | ((np.abs(ky[:, None]) <= 1e-9) & (kx[None, :] > 0))
    local = (magnitude == maximum_filter(magnitude, size=3, mode="nearest")) & half & (from_zero > 3) & (magnitude > 0)
    rows, columns = np.nonzero(local)
    order = np.argsort(-magnitude[rows, columns], kind="stable")[:most]
    return [
        {"kx": float(kx[j]), "ky": float(ky[i]), "magnitude": float(magnitude[i, j])}
        for i, j in zip(rows[order], columns[order], strict=True)
    ]


def _of_points(raw: RawMap, channel: int) -> tuple[Floats, Axes]:
    points = np.asarray(raw.points, np.float64) * _NM
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    distance = np.hypot(points[:, 0], points[:, 1])
    window = np.cos(0.5 * math.pi * distance / (distance.max() or 1.0)) ** 2
    values = raw.values[channel].ravel()
    values = values - values.mean()
    grid = KGrid(_POINTS_GRID)
    magnitude = np.abs(transform(points[:, 0], points[:, 1], values * window, grid)) / window.sum()
    # Pixel centres lie on the grid's limits, so its outer edges lie half a step further.
    x, y = ((last + step / 2) * _NM for last, step in zip((grid.kx_max, grid.ky_max), grid.step, strict=True))
    return magnitude, Axes((-x, x, -y, y), ("kx (1/nm)", "ky (1/nm)"))


def _hann(count: int) -> Floats:
    # Without the zeros at both ends, which would waste two of a few pixels.
    window: Floats = np.hanning(count + 2)[1:-1]
    return window


def _edges(count: int, step: float) -> tuple[float, float]:
    k = 2 * math.pi * np.fft.fftshift(np.fft.fftfreq(count, step))
    half = math.pi / (count * step)
    return float(k[0] - half), float(k[-1] + half)


def _centres(count: int, edges: tuple[float, ...]) -> Floats:
    step = (edges[1] - edges[0]) / count
    centres: Floats = np.asarray(edges[0] + step * (np.arange(count) + 0.5), np.float64)
    return centres
