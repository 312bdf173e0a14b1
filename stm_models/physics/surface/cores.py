"""What sits at an impurity and is not universal: occluded cores and Gaussian spots, added in place."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.compiled import compiled

__all__ = ["RINGS_BEGIN", "add_spot", "occlude"]

Floats = NDArray[np.float64]

RINGS_BEGIN = 3.0
"""Distance from an impurity at which its rings begin, px."""
_EXTENT = 5.0  # widths after which a spot ends: exp(-12.5)


@compiled
def occlude(image: Floats, y: float, x: float, radius: float) -> None:
    """Set the pixels of ``image`` (L, L) closer than ``radius`` px to (y, x) to zero."""
    size = image.shape[0]
    for row in range(max(0, math.ceil(y - radius)), min(size - 1, math.floor(y + radius)) + 1):
        for column in range(max(0, math.ceil(x - radius)), min(size - 1, math.floor(x + radius)) + 1):
            if (row - y) ** 2 + (column - x) ** 2 < radius * radius:
                image[row, column] = 0.0


@compiled
def add_spot(image: Floats, y: float, x: float, amplitude: float, width: float) -> None:
    """Add amplitude exp(-r² / 2 width²) to an image, in place.

    Parameters
    ----------
    image : (L, L) float64
    y, x : float, px
        Where r is zero, also outside the image; the centre of its first pixel is (0, 0).
    amplitude : float
        In the image's unit, of either sign.
    width : float, px
        Standard deviation, above 0; pixels farther away than 5 of it along an axis stay as they are.
    """
    size = image.shape[0]
    reach = _EXTENT * width
    scale = -0.5 / (width * width)
    for row in range(max(0, math.ceil(y - reach)), min(size - 1, math.floor(y + reach)) + 1):
        for column in range(max(0, math.ceil(x - reach)), min(size - 1, math.floor(x + reach)) + 1):
            image[row, column] += amplitude * math.exp(scale * ((row - y) ** 2 + (column - x) ** 2))
