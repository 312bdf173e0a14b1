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


def torch_maps(bundle: Bundle, target: int) -> dict[str, Callable[[Model, Array], Array]]:
    """Return by name functions of a model like the bundle's, and images (S, C, H, W), that give maps (S, C, H, W).

    Image by image, since a method on a line asks for many at once. ``target``: index of the target that is explained.
    """

    def function(name: str) -> Callable[[Model, Array], Array]:
        def maps(model: Model, images: Array) -> Array:
            explain = compute(replace(bundle, model=model), name, target=target)
            rows = torch.from_numpy(np.ascontiguousarray(images, np.float32)).split(1)
            return np.concatenate([explain(row, None).detach().numpy() for row in rows])

        return maps

    return {name: function(name) for name, refusal in available(bundle).items() if not refusal}
