"""What a model file computes, as a list of parts that are outputs of its graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from stm_models.explain.methods import PATHS, Steps, compute, path_of
from stm_models.explain.path import Path
from stm_models.networks.bundle import Bundle

__all__ = ["Parts", "parts_of", "references_of"]

Map = Callable[..., Tensor]


@dataclass(frozen=True)
class Parts:
    """Functions of a batch of images, in eval mode; each of their values is an output by its name.

    Attributes
    ----------
    answers : callable
        Images (B, C, H, W) to values by name with B rows each, ``prediction`` the first.
    maps : mapping of str to callable
        Images (B, C, H, W), and the pixel that is explained or None, to maps (B, ...): what is traced.
    paths : mapping of str to Path
        Attribution along lines, made of the map ``gradient``.
    explained : int
        Index of the target explained.
    hidden : collection of str
        Maps that are no outputs themselves.
    """

    answers: Callable[[Tensor], Mapping[str, Tensor]]
    maps: Mapping[str, Map]
    paths: Mapping[str, Path] = field(default_factory=dict)
    explained: int = 0
    hidden: Collection[str] = ()


def parts_of(
    bundle: Bundle, explained: int, names: Collection[str] = ("gradient",), steps: Steps | None = None
) -> Parts:
    """Return what the file of ``bundle`` computes; target ``explained`` is the one that the maps ``names`` explain."""
    steps = steps or Steps()
    paths = {name: path_of(bundle, name, steps) for name in names if name in PATHS}
    traced = [name for name in names if name not in PATHS]
    hidden = ["gradient"] if paths and "gradient" not in traced else []
    maps = {name: compute(bundle, name, target=explained) for name in (*hidden, *traced)}
    return Parts(bundle.answers, maps, paths, explained, hidden)


def references_of(
    bundle: Bundle, explained: int, names: Collection[str] = ("gradient",), steps: Steps | None = None
) -> Parts:
    """Return the same with every map by autograd, to compare with: nothing is hidden, and lines are maps as well."""
    return Parts(
        bundle.answers, {name: compute(bundle, name, target=explained, steps=steps) for name in names},
        explained=explained,
    )  # fmt: skip
