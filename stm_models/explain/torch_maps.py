"""The explanations of a model file as functions of a torch model, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from stm_models.explain.gradient import gradient

__all__ = ["MAPS"]

Array = NDArray[Any]

MAPS: dict[str, Callable[..., Array]] = {"gradient": gradient}
"""``(model, images, target=index)``: images (S, C, H, W) to maps (S, C, H, W)."""
