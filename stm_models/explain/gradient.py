"""The derivative of a prediction with respect to its image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.explain.scalar import chosen
from stm_models.networks.model import Model

__all__ = ["gradient", "slope"]

_BATCH = 64


def slope(model: nn.Module, image: Tensor, focus: Tensor | None = None, *, target: int = 0) -> Tensor:
    """Return the derivative of the answer that `scalar.chosen` chooses: (B, C, H, W) for ``image`` (B, C, H, W).

    In the target's unit per the image's unit.

    Notes
    -----
    In eval mode no sample acts on another, so the gradient of the batch's sum holds each sample's own one.
    """
    leaf = image.detach().requires_grad_(True)
    with torch.enable_grad():
        prediction = model(leaf)
        (gradient,) = torch.autograd.grad(prediction, leaf, chosen(prediction, target, focus))
    return gradient


def gradient(model: Model, images: NDArray[Any], target: int = 0) -> NDArray[np.float32]:
    """Return d prediction[:, target] / d image by automatic differentiation, on the model's device.

    Of a map it is the derivative of the strongest pixel.

    Parameters
    ----------
    model : Model
        Used in eval mode.
    images : (S, C, H, W) floating, in the image's unit
    target : int
        Index of the target.

    Returns
    -------
    (S, C, H, W) float32
        In the target's unit per the image's unit.

    Raises
    ------
    InputError
        When the target does not exist or the images do not have the model's shape.
    """
    count, shape = len(model.target_mean), tuple(model.pixel_mean.shape)
    if not 0 <= target < count:
        raise InputError(f"target {target} does not exist: expected 0 to {count - 1}")
    if images.ndim != 4 or images.shape[1:] != shape:
        raise InputError(f"images have shape {images.shape}: expected (samples, *{shape})")
    was_training = model.training
    model.eval()
    result = np.empty(images.shape, dtype=np.float32)
    try:
        for start in range(0, len(images), _BATCH):
            x = torch.tensor(images[start : start + _BATCH]).to(model.pixel_mean)
            result[start : start + _BATCH] = slope(model, x, target=target).cpu().numpy()
    finally:
        model.train(was_training)
    return result
