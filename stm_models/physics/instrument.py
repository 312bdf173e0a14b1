"""What a scanning tunnelling microscope adds to a conductance map: correlated, multiplicative noise and its kin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["Instrument", "blur", "measure", "scan_noise", "shear"]

Array = NDArray[Any]
Range = tuple[float, float]


@dataclass(frozen=True)
class Instrument:
    """Ranges that one measurement draws its properties from, uniformly.

    The noise, its colour and correlation, row offsets, shear and spikes are what was measured on real grid and
    image files; the tip's blur and change are optional and their figures our choice.

    Attributes
    ----------
    noise : range
        Standard deviation of the noise over the local signal.
    correlation : float
        Of the noise, and of the row offsets, at two biases.
    slope : range
        The noise's power falls as 1 / frequency**slope, along the scan.
    row_offset : range
        Standard deviation of the rows' offsets over that of the map.
    shear : range
        Drift between the first and the last row, pixels; to either side.
    spikes : range
        Share of the pixels.
    spike_height : range
        In standard deviations of the map.
    blur_probability : float
    blur_nm, blur_ratio : range
        Standard deviation of an elliptical tip, nm, and ratio of the longer to the shorter.
    change_probability : float
        Of the tip changing during the scan.
    change : range
        Factor on the signal from then on.
    """

    noise: Range = (0.09, 0.14)
    correlation: float = 0.5
    slope: Range = (0.8, 1.0)
    row_offset: Range = (0.10, 0.17)
    shear: Range = (0.0, 2.0)
    spikes: Range = (0.0, 1e-3)
    spike_height: Range = (6.0, 10.0)
    blur_probability: float = 0.25
    blur_nm: Range = (0.02, 0.05)
    blur_ratio: Range = (1.0, 1.15)
    change_probability: float = 0.1
    change: Range = (0.85, 1.15)


def measure(
    maps: Array,
    pixel_nm: float,
    instrument: Instrument,
    rng: np.random.Generator,
    *,
    where: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the maps as an instrument would have recorded them.

    Parameters
    ----------
    maps : (B, Y, X) floating
        Signal at B biases, scanned row by row along x; all biases of a pixel are taken there, as in a grid.
    pixel_nm : float
        Side of a pixel, nm.
    instrument : Instrument
    rng : numpy.random.Generator
        What it gives decides the result.
    where : (Y, X) bool, optional
        Pixels that count for the map's standard deviation; by default all.

    Returns
    -------
    (B, Y, X) float64

    Raises
    ------
    InputError
        For maps that are not of three axes, at least 8 by 8 pixels, and finite, or a pixel without a size.
    """
    maps = np.asarray(maps, np.float64)
    if maps.ndim != 3 or min(maps.shape[1:]) < 8 or not np.isfinite(maps).all() or not 0 < pixel_nm < math.inf:
        raise InputError(
            f"maps of shape {maps.shape} with pixels of {pixel_nm:g} nm: expected (bias, y, x), at least 8 x 8, finite"
        )
    biases, rows, columns = maps.shape
    counted = np.ones((rows, columns), bool) if where is None else where
    contrast = maps[:, counted].std(axis=1)[:, None, None]
    if rng.random() < instrument.blur_probability:
        narrow = rng.uniform(*instrument.blur_nm)
        maps = blur(maps, pixel_nm, (narrow * rng.uniform(*instrument.blur_ratio), narrow), rng.uniform(0, math.pi))
    maps = shear(maps, rng.uniform(*instrument.shear) * rng.choice([-1, 1]))
    if rng.random() < instrument.change_probability:
        changed = np.arange(rows * columns).reshape(rows, columns) >= rng.integers(rows * columns)
        maps = np.where(changed, rng.uniform(*instrument.change), 1.0) * maps
    noise = scan_noise(maps.shape, rng.uniform(*instrument.slope), instrument.correlation, rng)
    result: Array = maps * (1 + rng.uniform(*instrument.noise) * noise)
    offsets = _correlated(rng.standard_normal((biases + 1, rows, 1)), instrument.correlation)
    result += rng.uniform(*instrument.row_offset) * contrast * offsets
    count = int(rows * columns * rng.uniform(*instrument.spikes))
    y, x = np.unravel_index(rng.choice(rows * columns, count, replace=False), (rows, columns))
    heights = rng.uniform(*instrument.spike_height, count) * rng.choice([-1, 1], count)
    result[:, y, x] += contrast[:, 0] * heights
    return result


def scan_noise(
    shape: tuple[int, ...], slope: float, correlation: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return noise of unit variance whose power falls as 1 / frequency**slope in the order of the scan.

    Below one period per row there is none: row offsets are drawn apart, with the strength that was measured.
    Noise of 1/f down to the whole scan's period would make them three times as strong.

    Parameters
    ----------
    shape : (biases, rows, columns)
    slope : float
    correlation : float
        Between two biases at the same pixel.
    rng : numpy.random.Generator

    Returns
    -------
    (biases, rows, columns) float64
    """
    biases, rows, columns = shape
    count = rows * columns
    frequency = np.fft.rfftfreq(count)
    amplitude = np.zeros(len(frequency))
    kept = frequency >= 1 / columns
    amplitude[kept] = frequency[kept] ** (-slope / 2)
    # Each mode but a last one of an even count stands for two.
    twice = np.where(frequency < 0.5, 2.0, 1.0)
    amplitude *= count / math.sqrt((twice * amplitude**2).sum())
    modes = rng.standard_normal((2, biases + 1, len(frequency)))
    spectrum = amplitude * (modes[0] + 1j * modes[1]) / math.sqrt(2)
    if count % 2 == 0:
        spectrum[:, -1] = amplitude[-1] * modes[0, :, -1]
    return _correlated(np.fft.irfft(spectrum, count).reshape(biases + 1, rows, columns), correlation)


def shear(maps: Array, pixels: float) -> Array:
    """Move the rows of ``maps`` (B, Y, X) along x, the last by ``pixels`` more than the first, the middle not.

    A shift of the rows' Fourier series: nothing is smoothed, what leaves on one side enters on the other.
    """
    rows, columns = maps.shape[1:]
    shift = pixels * (np.arange(rows) / (rows - 1) - 0.5)
    turn = np.exp(-2j * math.pi * np.outer(shift, np.fft.rfftfreq(columns)))
    moved: Array = np.fft.irfft(np.fft.rfft(maps, axis=2) * turn, columns, axis=2)
    return moved


def blur(maps: Array, pixel_nm: float, widths_nm: Range, angle: float) -> Array:
    """Convolve ``maps`` (B, Y, X) with a Gaussian of two standard deviations, the first along ``angle`` (radian).

    Opposite edges are joined.
    """
    ky = 2 * math.pi * np.fft.fftfreq(maps.shape[1])[:, None] / pixel_nm
    kx = 2 * math.pi * np.fft.rfftfreq(maps.shape[2])[None, :] / pixel_nm
    along = (kx * math.cos(angle) + ky * math.sin(angle)) * widths_nm[0]
    across = (ky * math.cos(angle) - kx * math.sin(angle)) * widths_nm[1]
    blurred: Array = np.fft.irfft2(np.fft.rfft2(maps) * np.exp(-(along**2 + across**2) / 2), maps.shape[1:])
    return blurred


def _correlated(fields: Array, correlation: float) -> Array:
    """Mix the first of (B + 1) independent fields into the others."""
    mixed: Array = math.sqrt(correlation) * fields[:1] + math.sqrt(1 - correlation) * fields[1:]
    return mixed
