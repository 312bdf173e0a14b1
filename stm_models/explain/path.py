"""Attribution along straight lines from other images to the one that is explained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.explain.gradient import slope
from stm_models.explain.scalar import place

__all__ = ["Path", "attribute"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Path:
    """Points on lines: ``sum_s weight_s (x - base_s) * gradient(base_s + alpha_s (x - base_s))`` is the map of x.

    Attributes
    ----------
    bases : (K, C, H, W) float32, the image's unit
        Where lines start.
    index : (S,) int64
        Which of them, of each point.
    alpha, weight : (S,) float32
    """

    bases: Floats
    index: NDArray[np.int64]
    alpha: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.index)


def attribute(model: nn.Module, image: Tensor, focus: Tensor | None = None, *, target: int = 0, path: Path) -> Tensor:
    """Return a map of each image: what its pixels contribute on the lines that lead to it.

    Of a model that answers with maps, the pixel explained is one of the answer to ``image``, all along the line.

    Parameters
    ----------
    model : Module
        (B, C, H, W) to (B, T) or (B, T, H, W).
    image : (B, C, H, W) floating
    focus : (B,) or (1,) int64, optional
        Of maps: the pixel ``y * W + x``; -1, and without it, the strongest one of each.
    target : int
        Index of the target.
    path : Path
        Where the lines begin, and the points on them.

    Returns
    -------
    (B, C, H, W) floating
        In the target's unit; dtype and device are the image's.
    """
    with torch.no_grad():
        prediction = model(image)
        if prediction.ndim == 4:
            focus = place(prediction, focus)[:, target, 0]
    bases = torch.from_numpy(path.bases).to(image)
    total = torch.zeros_like(image)
    for index, alpha, weight in zip(path.index.tolist(), path.alpha.tolist(), path.weight.tolist(), strict=True):
        line = image - bases[index]
        total += weight * line * slope(model, bases[index] + alpha * line, focus, target=target)
    return total
