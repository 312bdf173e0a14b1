"""The explanations of a model file as functions of a torch model, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from stm_models.explain.gradient import gradient
from stm_models.networks.bundle import Bundle
from stm_models.networks.model import Model

__all__ = ["torch_maps"]

Array = NDArray[Any]


def torch_maps(bundle: Bundle, target: int) -> dict[str, Callable[[Model, Array], Array]]:
    """Return by name functions of a model like the bundle's, and images (S, C, H, W), that give maps (S, C, H, W).

    ``target``: index of the target that is explained.
    """
    return {"gradient": partial(gradient, target=target)}
