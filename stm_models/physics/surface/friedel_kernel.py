"""The compiled sum of Friedel oscillations; what goes in is described by :class:`friedel.Draws`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.compiled import compiled

__all__ = ["render"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SINE = tuple((-1) ** n * math.pi ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(8))


@compiled(fastmath=True)
def _cosine(turns: float) -> float:
    """Cosine of 2 pi turns, to 2e-11: 1 - 2 sin²(pi u) with u in [-1/2, 1/2]; no call, so that loops vectorise."""
    u = turns - math.floor(turns + 0.5)
    s = u * u
    sine = u * (
        _SINE[0]
        + s
        * (_SINE[1] + s * (_SINE[2] + s * (_SINE[3] + s * (_SINE[4] + s * (_SINE[5] + s * (_SINE[6] + s * _SINE[7]))))))
    )
    return 1.0 - 2.0 * sine * sine


@compiled(fastmath=True)
def render(
    positions: Floats,
    total: Ints,
    amplitude: Floats,
    turns: Floats,
    rate: Floats,
    exponent: Floats,
    cutoff: float,
    noise: Floats,
    normal: NDArray[np.float32],
    images: NDArray[np.float32],
) -> None:
    """Write the images, each of largest magnitude 1 before the noise.

    Parameters
    ----------
    positions : (S, N, 2) float64, px
        y, x.
    total : (S,) int64
        So many positions of each sample are taken, the first ones.
    amplitude : (S, V, N) float64
    turns : (S, V, N) float64
        Phases over 2 pi.
    rate : (S, V) float64, turns per px
        Wave numbers k over pi: a wave goes as cos 2 k r.
    exponent : (S,) float64
    cutoff : float, px
        Added to every distance that is raised to the exponent.
    noise : (S,) float64
        Standard deviation.
    normal : (S, V, L, L) float32
        Unit white noise.
    images : (S, V, L, L) float32
        What is written to.
    """
    samples, biases, size, _ = images.shape
    field = np.empty((biases, size, size))
    distance = np.empty((size, size))
    envelope = np.empty((size, size))
    for s in range(samples):
        field[:] = 0.0
        for w in range(total[s]):
            _distances(positions[s, w, 0], positions[s, w, 1], exponent[s], cutoff, distance, envelope)
            for v in range(biases):
                a, phase, q = amplitude[s, v, w], turns[s, v, w], rate[s, v]
                for row in range(size):
                    for column in range(size):
                        wave = _cosine(q * distance[row, column] + phase)
                        field[v, row, column] += a * envelope[row, column] * wave
        for v in range(biases):
            _finish(field[v], noise[s], normal[s, v], images[s, v])


@compiled(fastmath=True)
def _distances(y: float, x: float, exponent: float, cutoff: float, distance: Floats, envelope: Floats) -> None:
    size = distance.shape[0]
    for row in range(size):
        for column in range(size):
            distance[row, column] = math.sqrt((row - y) ** 2 + (column - x) ** 2)
    if exponent == 2.0:
        for row in range(size):
            for column in range(size):
                envelope[row, column] = 1.0 / (distance[row, column] + cutoff) ** 2
    else:
        for row in range(size):
            for column in range(size):
                envelope[row, column] = math.exp(-exponent * math.log(distance[row, column] + cutoff))


@compiled(fastmath=True)
def _finish(field: Floats, noise: float, normal: NDArray[np.float32], image: NDArray[np.float32]) -> None:
    """Subtract the mean, divide by the largest magnitude, add the noise."""
    size = field.shape[0]
    mean = 0.0
    for row in range(size):
        for column in range(size):
            mean += field[row, column]
    mean /= size * size
    largest = 0.0
    for row in range(size):
        for column in range(size):
            largest = max(largest, abs(field[row, column] - mean))
    scale = 1.0 / max(largest, 1e-300)
    for row in range(size):
        for column in range(size):
            image[row, column] = (field[row, column] - mean) * scale + noise * normal[row, column]
