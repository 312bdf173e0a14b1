"""Map at the band bottom, where each impurity's bound state shows: the reference answer of arXiv:2006.15898."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import k0

from stm_models.physics.compiled import compiled

__all__ = ["BoundState", "bound_state_map"]

Floats = NDArray[np.float64]
_STEP = 0.02  # px, of the tabulated profile


@dataclass(frozen=True)
class BoundState:
    """Shape of the states.

    Attributes
    ----------
    width : float, px
        Standard deviation of the Gaussian centre.
    spread : float
        Relative standard deviation of the states' heights.
    tail : float
        Height of the K0² tail at 1 px, relative to the centre; constant inside.
    decay : float, rad/px
        kappa of the tail: .2 is a state 30 meV below Au(111)'s band on 4.7 Å pixels.
    noise : float
        White noise relative to the height.
    """

    width: float = 1.4
    spread: float = 0.25
    tail: float = 0.15
    decay: float = 0.2
    noise: float = 0.1


def bound_state_map(positions: Floats, size: int, shape: BoundState, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sum of height (exp(-r² / 2 width²) + tail (K0(kappa r) / K0(kappa))²) and white noise: (size, size) float32.

    Parameters
    ----------
    positions : (N, 2) float64, px
        y, x; those outside the frame leave their tails.
    size : int, px
    shape : BoundState
    rng : numpy.random.Generator
    """
    height = np.clip(1 + shape.spread * rng.standard_normal(len(positions)), 0.2, None)
    total = shape.noise * rng.standard_normal((size, size))
    farthest = float(np.abs(positions).max(initial=0.0)) + size
    reach = np.arange(0, 1.5 * farthest + 1, _STEP)
    tail = shape.tail * (k0(shape.decay * np.maximum(reach, 1)) / k0(shape.decay)) ** 2
    profile = np.exp(-0.5 * (reach / shape.width) ** 2) + tail
    _add_profiles(total, positions, height, profile)
    return total.astype(np.float32)


@compiled
def _add_profiles(total: Floats, positions: Floats, height: Floats, profile: Floats) -> None:
    for i in range(positions.shape[0]):
        for row in range(total.shape[0]):
            for column in range(total.shape[1]):
                r = math.sqrt((row - positions[i, 0]) ** 2 + (column - positions[i, 1]) ** 2) / _STEP
                j = int(r)
                total[row, column] += height[i] * (profile[j] + (r - j) * (profile[j + 1] - profile[j]))
