"""Predictions for many images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models import heap
from stm_models.errors import InputError
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model
from stm_models.training.appearance import Appearance

__all__ = ["features", "in_batches", "predict"]

_MOST, _VALUES = 256, 2**20  # images at once; numbers in them on a CPU, where more gains nothing and takes gigabytes


def predict(model: nn.Module, images: NDArray[Any], batch_size: int | None = None) -> NDArray[np.float64]:
    """Apply ``model`` in eval mode, on the device where it is.

    Parameters
    ----------
    model : nn.Module
        Maps (B, C, H, W) float32 to (B, T) or (B, 1, H, W).
    images : (S, C, H, W) floating, S >= 1
        Of the model's height and width, unless it answers with maps.
    batch_size : int, optional
        Images at once; by default 256, and on a CPU fewer of large ones.

    Returns
    -------
    (S, T) or (S, 1, H, W) float64, in the targets' units

    Raises
    ------
    InputError
        When there are no images, or they do not have the model's shape.
    """
    expected = getattr(model, "pixel_mean", None)
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"images have shape {images.shape}: expected (samples, channels, height, width)")
    fixed = 2 if isinstance(getattr(model, "network", None), MapNetwork) else 4
    if expected is not None and tuple(images.shape[1:fixed]) != tuple(expected.shape[: fixed - 1]):
        raise InputError(f"images have shape {images.shape[1:]}: this model expects {tuple(expected.shape)}")
    return in_batches(model, model, images, batch_size).astype(np.float64)


def features(
    model: Model, images: NDArray[Any], batch_size: int | None = None, *, appearance: Appearance | None = None
) -> NDArray[np.float32]:
    """Return the penultimate features of images (S, C, H, W) and, with an ``appearance``, their looks: (S, F)."""
    found = in_batches(model, model.features, images, batch_size)
    if appearance is None:
        return found
    return np.concatenate([found, in_batches(appearance, appearance, images, batch_size)], axis=1)


def in_batches(
    model: nn.Module, function: Callable[[Tensor], Tensor], images: NDArray[Any], size: int | None = None
) -> NDArray[np.float32]:
    """Apply a ``function`` of images on the model's device, the model in eval mode: its values, a row per image."""
    device = next((value.device for value in model.state_dict().values()), torch.device("cpu"))
    if size is None:
        size = _MOST if device.type == "cuda" else max(1, min(_MOST, _VALUES // images[0].size))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), heap.kept():
            parts = []
            for start in range(0, len(images), size):
                block = np.ascontiguousarray(images[start : start + size], dtype=np.float32)
                parts.append(function(torch.from_numpy(block).to(device)).cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(parts)
