"""What a named perturbation set is: which distortions, how often, how strong. No random number is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import unknown

__all__ = ["CLEAN", "KINDS", "Perturbation", "Remake", "Step", "find"]

Array = NDArray[Any]

Remake = Callable[[Mapping[str, Any], Mapping[str, Array], np.random.Generator], NDArray[np.float32]]
"""From a sample's coordinates, its stored arrays and its ``image``, with random numbers, to its image anew."""

KINDS: dict[str, tuple[str, ...]] = {
    "gain_shift": ("gain", "shift"),
    "gaussian": ("sigma",),
    "scan_line": ("sigma",),
    "strain": ("strain",),
    "tip_blur": ("sigma", "ratio"),
}
"""The distortions of an image, and the quantities that each draws."""


@dataclass(frozen=True)
class Step:
    """One distortion of an image, which each sample suffers with some probability and a strength of its own.

    Attributes
    ----------
    kind : str
        A name of `KINDS`.
    probability : float
    ranges : mapping of str to (low, high)
        Drawn uniformly. ``gain`` (factor), ``shift`` and ``sigma`` of noise (the image's unit), ``strain``
        (fraction), ``sigma`` of a tip (pixels), ``ratio`` of its two widths.
    """

    kind: str
    probability: float
    ranges: Mapping[str, tuple[float, float]]

    def __post_init__(self) -> None:
        if self.kind not in KINDS or set(self.ranges) != set(KINDS[self.kind]) or not 0 <= self.probability <= 1:
            raise ValueError(f"no such distortion: {self}; they are {KINDS}")


@dataclass(frozen=True)
class Perturbation:
    """A named set of distortions.

    Attributes
    ----------
    name, description : str
    steps : tuple of Step
        Done to the image, in this order.
    remake : callable, optional
        Called with a data set's attributes, and as ``example`` the first row of its ``needs``, gives the `Remake`
        that makes a sample's image anew from these; before the steps.
    needs : tuple of str
        Arrays of the data set that ``remake`` is given.
    about : mapping
        Further figures, for the record.
    judged : bool
        Whether models are judged on it; else it is to train on alone.
    """

    name: str
    description: str
    steps: tuple[Step, ...] = ()
    remake: Callable[[Mapping[str, Any]], Remake] | None = None
    needs: tuple[str, ...] = ()
    about: Mapping[str, Any] | None = None
    judged: bool = True

    def record(self) -> dict[str, Any]:
        """Plain values that say all about the set, as they are logged."""
        steps = [{"kind": s.kind, "probability": s.probability, **{k: list(v) for k, v in s.ranges.items()}}
                 for s in self.steps]  # fmt: skip
        return {"name": self.name, "description": self.description, "steps": steps, **(self.about or {})}


CLEAN = Perturbation("clean", "the images as they were simulated")


def find(sets: Iterable[Perturbation], name: str) -> Perturbation:
    """Return the set called ``name``; raises InputError with the choices for another name."""
    known = {one.name: one for one in sets}
    if name not in known:
        raise unknown("perturbation", name, known)
    return known[name]
