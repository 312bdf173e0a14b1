"""Mean and scale of images per pixel and of targets, from training data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["pixel_statistics", "target_statistics"]

_FLOOR = 1e-3
_CHUNK = 64


def pixel_statistics(images: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and scale of every pixel.

    The scale is the standard deviation, but never below 1e-3 of the median one, so that a pixel that hardly
    varies in the training data cannot dominate.

    Parameters
    ----------
    images : (S, C, H, W) floating, S >= 1

    Returns
    -------
    mean, scale : (C, H, W) float32

    Raises
    ------
    InputError
        When the images hold NaN or infinity, or there are none.
    """
    if images.ndim != 4 or images.size == 0:
        raise InputError(
            f"images have shape {images.shape}: expected (samples, channels, height, width), none of them 0"
        )
    parts = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(images)
    if not np.isfinite(mean).all():
        raise InputError("the images hold NaN or infinity: leave those samples out or repair them")
    variance = sum(np.square(part - mean).sum(axis=0) for part in parts) / len(images)
    scale = np.sqrt(variance)
    varying = scale[scale > 0]
    if varying.size == 0:
        return mean.astype(np.float32), np.ones_like(mean, dtype=np.float32)
    typical = np.median(scale) or np.median(varying)
    return mean.astype(np.float32), np.maximum(scale, _FLOOR * typical).astype(np.float32)


def target_statistics(targets: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation (1 where constant), both (T,) float32, of ``targets`` (S, T).

    Raises
    ------
    InputError
        When the targets hold NaN or infinity, or there are none.
    """
    if targets.ndim != 2 or targets.size == 0:
        raise InputError(f"targets have shape {targets.shape}: expected (samples, targets), none of them 0")
    if not np.isfinite(targets).all():
        raise InputError("the targets hold NaN or infinity: leave those samples out")
    mean, scale = targets.mean(axis=0), targets.std(axis=0)
    constant = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    return mean.astype(np.float32), np.where(constant, 1.0, scale).astype(np.float32)
