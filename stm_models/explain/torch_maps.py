"""The explanations of a model file as functions of a torch model, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stm_models.explain.methods import available, compute
from stm_models.networks.bundle import Bundle
from stm_models.networks.model import Model

__all__ = ["torch_maps"]

Array = NDArray[Any]


def torch_maps(bundle: Bundle, target: int) -> dict[str, Callable[..., Array]]:
    """Return by name functions of a model like the bundle's, and images (S, C, H, W), that give maps (S, C, H, W).

    Image by image, since a method on a line asks for many at once. ``target``: index of the target that is explained.
    Of a model that answers with maps they also take ``places``, y and x (S, 2) of the pixel that is explained of each
    image; without them it is the strongest one of the answer of that very model.
    """

    def function(name: str) -> Callable[..., Array]:
        def maps(model: Model, images: Array, places: Array | None = None) -> Array:
            explain = compute(replace(bundle, model=model), name, target=target)
            rows = torch.from_numpy(np.ascontiguousarray(images, np.float32)).split(1)
            focuses = [None] * len(rows) if places is None else _pixels(places, images.shape[3])
            return np.concatenate([explain(*pair).detach().numpy() for pair in zip(rows, focuses, strict=True)])

        return maps

    return {name: function(name) for name, refusal in available(bundle).items() if not refusal}


def _pixels(places: Array, width: int) -> list[torch.Tensor]:
    y, x = np.asarray(places, np.int64).T
    return list(torch.from_numpy(y * width + x).split(1))
