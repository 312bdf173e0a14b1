"""What a network is to answer: a peak at every impurity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAT_WIDTH", "PAD", "heat_map", "padded", "pixel_map", "unpadded"]

Floats = NDArray[np.float64]

HEAT_WIDTH = 0.8
"""Standard deviation of a peak of the heat map, px."""
PAD = -1.0
"""Stands for no impurity in a padded list; no pixel lies there."""


def heat_map(positions: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
    """Largest over the impurities of exp(-d² / 2 width²): (H, W) float32; positions (N, 2) y, x in px."""
    y, x = np.arange(size[0])[:, None], np.arange(size[1])[None]
    heat = np.zeros(size)
    for row, column in positions:
        np.maximum(heat, np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * HEAT_WIDTH**2)), out=heat)
    return heat.astype(np.float32)


def pixel_map(positions: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
    """1 at the nearest pixel of each impurity, 0 elsewhere: (H, W) float32."""
    result = np.zeros(size, np.float32)
    pixel = np.rint(positions).astype(int)
    result[np.clip(pixel[:, 0], 0, size[0] - 1), np.clip(pixel[:, 1], 0, size[1] - 1)] = 1
    return result


def padded(positions: Floats, most: int) -> NDArray[np.float32]:
    """Positions with rows of -1 below them: (most, 2) float32."""
    result = np.full((most, 2), PAD, np.float32)
    result[: len(positions)] = positions
    return result


def unpadded(positions: NDArray[np.floating]) -> list[Floats]:
    """Positions of each sample, (N, 2) float64, from their padded lists (S, N_max, 2)."""
    lists: Sequence[NDArray[np.floating]] = list(positions)
    return [np.asarray(one[one[:, 0] > -0.75], np.float64) for one in lists]
