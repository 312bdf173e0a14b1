"""The derivative of a prediction with respect to its image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stm_models.explain.scalar import chosen

__all__ = ["slope"]


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
