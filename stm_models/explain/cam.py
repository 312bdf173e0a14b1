"""Signed Grad-CAM: where the last feature map speaks for a larger answer, and where for a smaller one.

Notes
-----
With A_k the last feature map and y the number explained, the map is sum_k <dy/dA_k> A_k, the mean being over pixels,
brought to the image's size by bilinear interpolation; an ensemble has feature maps in every member. Grad-CAM [1]_ of a
class cuts off what is negative; of a regression that would hide half of the answer, so nothing is cut off here.

References
----------
.. [1] Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stm_models.explain.scalar import chosen
from stm_models.networks.model import Model

__all__ = ["grad_cam", "refusal"]


def refusal(model: Model) -> str:
    """Return why ``model`` has no such map; empty where it has one."""
    return model.network.no_cam()


def grad_cam(model: Model, image: Tensor, focus: Tensor | None = None, *, target: int = 0) -> Tensor:
    """Return the (B, 1, H, W) map of ``image`` (B, C, H, W), in the target's unit."""
    kept: list[Tensor] = []
    leaf = image.detach().requires_grad_(True)
    handles = [
        layer.register_forward_hook(lambda _module, _inputs, found: kept.append(found))
        for layer in model.network.cam_layers()
    ]
    try:
        with torch.enable_grad():
            prediction = model(leaf)
            slopes = torch.autograd.grad(prediction, kept, chosen(prediction, target, focus))
    finally:
        for handle in handles:
            handle.remove()
    parts = [_weighted(*(model.network.as_map(part) for part in pair)) for pair in zip(kept, slopes, strict=True)]
    cam = torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
    rows, columns = (_stretch(new, old).to(cam) for new, old in zip(image.shape[2:], cam.shape[2:], strict=True))
    return rows @ cam @ columns.T


def _weighted(features: Tensor, slope: Tensor) -> Tensor:
    """Return the (B, 1, h, w) sum of feature maps (B, F, h, w), each times the mean of its slope."""
    return (slope.mean(dim=(2, 3), keepdim=True) * features.detach()).sum(dim=1, keepdim=True)


def _stretch(new: int, old: int) -> Tensor:
    """Return the (new, old) matrix of linear interpolation between pixel centres, constant beyond the outer ones."""
    at = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(0, old - 1)
    return (1 - (at[:, None] - torch.arange(old, dtype=torch.float64)).abs()).clamp_min(0)
