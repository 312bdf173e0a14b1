"""Integrated gradients: the answer's difference to that of the training's mean image, shared out among the pixels [1]_.

Notes
-----
The integral over the line is Gauss-Legendre quadrature; the map's sum is the difference up to its error
(*completeness*), which `completeness` measures.

References
----------
.. [1] Sundararajan, Taly and Yan, ICML 2017, arXiv:1703.01365.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stm_models.explain.path import Path
from stm_models.explain.scalar import place
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model

__all__ = ["completeness", "path", "refusal"]


def refusal(model: Model) -> str:
    """Return why ``model`` has no such map; empty where it has one."""
    network = model.network
    if isinstance(network, MapNetwork) and network.options.answer == "softmax":
        return (
            "its answer is divided by the map's own maximum, held constant in derivatives: "
            "gradients along a line do not add up to a difference"
        )
    return ""


def path(baseline: NDArray[np.float32], steps: int) -> Path:
    """Return the quadrature from ``baseline`` (C, H, W) with ``steps`` points."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return Path(
        baseline[None].astype(np.float32), np.zeros(steps, np.int64),
        ((nodes + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32),
    )  # fmt: skip


def completeness(model: Model, image: Tensor, maps: Tensor, baseline: NDArray[np.float32], *, target: int = 0) -> float:
    """Return the largest error of the sums of some maps, over the rms of the differences they stand for.

    Of a model that answers with maps, those are differences at the strongest pixel of the answer to each image.

    Parameters
    ----------
    model : Model
    image : (B, C, H, W) floating
        In the model's input unit.
    maps : (B, C, H, W) floating
        Of these images, in the target's unit.
    baseline : (C, H, W) float32
        Where the lines to the images begin.
    target : int
        Index of the target.

    Returns
    -------
    float
        0 where every map's sum is what the answers to its image and to ``baseline`` differ by.
    """
    with torch.no_grad():
        start = torch.from_numpy(baseline[None]).to(image)
        here, there = model(image)[:, target], model(start)[:, target]
        if here.ndim == 3:
            pixel = place(here.unsqueeze(1))[:, 0]
            here, there = (part.flatten(1).expand(len(image), -1).gather(1, pixel)[:, 0] for part in (here, there))
        difference = (here - there).double()
        error = (maps.double().sum(dim=(1, 2, 3)) - difference).abs().max()
        return float(error / difference.square().mean().sqrt().clamp_min(1e-30))
