"""Which number of an answer an explanation explains."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["chosen", "place"]


def chosen(prediction: Tensor, target: int = 0, focus: Tensor | None = None) -> Tensor:
    """Return weights of the shape of ``prediction`` that are 1 at the number explained, one of each row, else 0.

    Parameters
    ----------
    prediction : (B, T) or (B, T, H, W)
    target : int
    focus : (B,) or (1,) int64, optional
        Of maps: the pixel ``y * W + x``; -1, and without it, the strongest one of each map.
    """
    column = torch.arange(prediction.shape[1], device=prediction.device) == target
    if prediction.ndim == 2:
        return column.expand_as(prediction).to(prediction.dtype)
    maps = prediction.detach()
    pixels = torch.arange(maps.shape[2] * maps.shape[3], device=maps.device)
    here = (pixels == place(maps, focus)).unflatten(2, maps.shape[2:])
    return (column[:, None, None] & here).to(prediction.dtype)


def place(maps: Tensor, focus: Tensor | None = None) -> Tensor:
    """Return the pixel ``y * W + x`` of each map (B, T, H, W) that is explained: (B, T, 1) int64."""
    strongest = maps.flatten(2).argmax(dim=2, keepdim=True)
    if focus is None:
        return strongest
    given = focus.unsqueeze(1).unsqueeze(2)
    return torch.where(given < 0, strongest, given)
