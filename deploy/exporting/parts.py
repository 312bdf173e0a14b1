"""What a model file computes, as a list of parts that are outputs of its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from stm_models.explain.gradient import slope
from stm_models.networks.bundle import Bundle

__all__ = ["Parts", "parts_of"]


@dataclass(frozen=True)
class Parts:
    """Functions of a batch of images, in eval mode; each of their values is an output by its name.

    Attributes
    ----------
    answers : callable
        Images (B, C, H, W) to values by name with B rows each, ``prediction`` the first.
    maps : mapping of str to callable
        Images (B, C, H, W), and the pixel that is explained or None, to maps (B, ...).
    """

    answers: Callable[[Tensor], Mapping[str, Tensor]]
    maps: Mapping[str, Callable[[Tensor, Tensor | None], Tensor]]


def parts_of(bundle: Bundle, explained: int) -> Parts:
    """Return what the file of ``bundle`` computes; target ``explained`` is the one that maps explain."""
    return Parts(bundle.answers, {"gradient": partial(slope, bundle.model, target=explained)})
