"""What an instrument adds to a stack of maps: noise, row offsets, drift, tip width, set point.

Maps are (..., y, x); x is the fast axis of the scan. Every noise has unit expected variance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["blur", "blurred_white", "drift", "line_offsets", "one_over_f", "plane", "set_point", "stripes"]

Floats = NDArray[np.float64]


def one_over_f(rng: np.random.Generator, shape: tuple[int, ...], power: float = 1.0, axis: int = -1) -> Floats:
    """Gaussian noise with a spectral density f^-power along one axis, independent along the others.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        (..., y, x).
    power : float
        1 is an amplitude spectrum f^-1/2.
    axis : int
        -1 along the lines of the scan, -2 across them.

    Returns
    -------
    float64 of that shape, no constant part along the axis
    """
    length = shape[axis]
    frequency = np.fft.rfftfreq(length)
    response = np.zeros(len(frequency))
    response[1:] = frequency[1:] ** (-power / 2)
    twice = np.full(len(frequency), 2.0)
    twice[0] = 1.0
    if length % 2 == 0:
        twice[-1] = 1.0
    response /= math.sqrt(float(np.sum(twice * response**2)) / length)
    along = [1] * len(shape)
    along[axis] = len(frequency)
    spectrum = np.fft.rfft(rng.standard_normal(shape), axis=axis) * response.reshape(along)
    return np.fft.irfft(spectrum, length, axis=axis)


def line_offsets(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """One value for each line of the scan: (..., y, 1) float64."""
    return rng.standard_normal((*shape[:-1], 1))


def blurred_white(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> Floats:
    """White noise smoothed by a Gaussian of ``width`` px over each map, float64."""
    axes = (len(shape) - 2, len(shape) - 1)
    smooth = gaussian_filter(rng.standard_normal(shape), width, mode="wrap", axes=axes)
    return smooth / _smoothed_deviation(width)


def blur(maps: Floats, width: float) -> Floats:
    """Maps seen by a tip of Gaussian width ``width`` px."""
    return gaussian_filter(maps, width, mode="nearest", axes=(maps.ndim - 2, maps.ndim - 1))


def drift(rng: np.random.Generator, count: int, length: float) -> Floats:
    """Displacement of the scan frame at each of ``count`` maps: (count, 2) float64, px.

    Steady, in a random direction, zero in the middle of the stack; its length is uniform within 30 % of ``length`` px.
    """
    angle = rng.uniform(0, 2 * np.pi)
    total = length * rng.uniform(0.7, 1.3) * np.array([np.sin(angle), np.cos(angle)])
    time = np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1)
    return time[:, None] * total


def stripes(rng: np.random.Generator, size: int, period: float, strength: float) -> Floats:
    """1 + strength cos(2 pi r / period) in a random direction and phase: (size, size) float64; period in px."""
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:size, :size]
    return 1 + strength * np.cos(2 * np.pi / period * (np.sin(angle) * y + np.cos(angle) * x) + phase)


def plane(rng: np.random.Generator, size: int, height: float) -> Floats:
    """Plane in a random direction that changes by ``height`` over one field, zero in the middle: (size, size)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / max(size - 1, 1) - 0.5
    return height * (np.sin(angle) * y + np.cos(angle) * x)


def set_point(rng: np.random.Generator, size: int, strength: float, width: float) -> Floats:
    """Smooth factor about 1 that the height of the tip leaves in every map: (size, size) float64.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
    strength : float
        Standard deviation.
    width : float, px
        Of the Gaussian that smooths it.
    """
    return 1 + strength * blurred_white(rng, (size, size), width)


def _smoothed_deviation(width: float) -> float:
    """Standard deviation of unit white noise after the filter, from the filter's own kernel."""
    reach = int(4 * width + 0.5)
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1.0
    kernel = gaussian_filter(impulse, width, mode="constant")
    return float(np.sum(kernel**2))
