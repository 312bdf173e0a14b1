"""What a named perturbation set is: which distortions, how often, how strong. No random number is drawn here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError, unknown

__all__ = ["CLEAN", "KINDS", "Perturbation", "Remake", "Step", "find", "scaled"]

Array = NDArray[Any]

Remake = Callable[[Mapping[str, Any], Mapping[str, Array], np.random.Generator], NDArray[np.float32]]
"""From a sample's coordinates, its stored arrays and its ``image``, with random numbers, to its image anew.

The coordinates have ``copy`` too: which copy of the whole data set the image is for.
"""

KINDS: dict[str, tuple[str, ...]] = {
    "gain_shift": ("gain", "shift"),
    "gaussian": ("sigma",),
    "scan_line": ("sigma",),
    "strain": ("strain",),
    "tip_blur": ("sigma", "ratio"),
}
"""The distortions of an image, and the quantities that each draws."""


_NOTHING = {"gain": 1.0, "ratio": 1.0}  # what changes nothing, where that is not 0


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
    among : tuple of (share, Perturbation)
        In place of steps: each image is as one of these sets has it, drawn with these shares, which sum to 1; ``needs``
        are then what these need.
    remake : callable, optional
        Called with a data set's attributes, and as ``example`` the first row of its ``needs``, gives the `Remake`
        that makes a sample's image anew from these; before the steps.
    needs : tuple of str
        Arrays of the data set that ``remake`` is given.
    about : mapping
        Further figures, for the record.
    judged : bool
        Whether models are judged on it; else it is to train on, or to be asked for by name.
    claims : tuple of str
        Sets beyond the judged ones that a model trained on it is to know, so that it is calibrated on these too.
    """

    name: str
    description: str
    steps: tuple[Step, ...] = ()
    remake: Callable[[Mapping[str, Any]], Remake] | None = None
    needs: tuple[str, ...] = ()
    about: Mapping[str, Any] | None = None
    judged: bool = True
    claims: tuple[str, ...] = ()
    among: tuple[tuple[float, Perturbation], ...] = ()

    def __post_init__(self) -> None:
        if not self.among:
            return
        sets = [one for _, one in self.among]
        if self.steps or self.remake is not None or not math.isclose(sum(share for share, _ in self.among), 1):
            raise ValueError(f"{self.name}: expected shares of other sets that sum to 1, and nothing of its own")
        if any(one.among for one in sets):
            raise ValueError(f"{self.name}: expected sets that are not drawn among others themselves")
        if {name for one in sets for name in one.needs} != set(self.needs):
            raise ValueError(f"{self.name} needs {self.needs}: expected what the sets need that it draws among")

    @property
    def remakes(self) -> bool:
        """Whether images are made anew, which takes longer than distorting them."""
        return self.remake is not None or any(one.remake is not None for _, one in self.among)

    def record(self) -> dict[str, Any]:
        """Plain values that say all about the set, as they are logged."""
        steps = [{"kind": s.kind, "probability": s.probability, **{k: list(v) for k, v in s.ranges.items()}}
                 for s in self.steps]  # fmt: skip
        among = [{"share": share, **one.record()} for share, one in self.among]
        done = {"among": among} if among else {"steps": steps}
        return {"name": self.name, "description": self.description, **done, **(self.about or {})}


def scaled(perturbation: Perturbation, strength: float) -> Perturbation:
    """Return a set as ``NAME:STRENGTH``, whose distortions are so many times as strong, and as frequent as before.

    What is drawn is as far from doing nothing (noise 0, gain 1) as ``strength`` says.

    Raises
    ------
    InputError
        For a strength that is not positive, or a set that has no distortions of the image.
    """
    if not 0 < strength < 100:
        raise InputError(f"the strength of a perturbation set is {strength:g}: expected a number above 0, 1 as it is")
    if not perturbation.steps or perturbation.remake is not None:
        raise InputError(
            f"the perturbation set {perturbation.name!r} has no strength: give one that distorts the image itself"
        )

    def range_of(name: str, low: float, high: float) -> tuple[float, float]:
        nothing = _NOTHING.get(name, 0.0)
        return nothing + strength * (low - nothing), nothing + strength * (high - nothing)

    steps = tuple(
        replace(step, ranges={name: range_of(name, *ends) for name, ends in step.ranges.items()})
        for step in perturbation.steps
    )
    about = {**(perturbation.about or {}), "strength": strength}
    return replace(perturbation, name=f"{perturbation.name}:{strength:g}", steps=steps, about=about)


CLEAN = Perturbation("clean", "the images as they were simulated")


def find(sets: Iterable[Perturbation], name: str) -> Perturbation:
    """Return the set called ``name``; raises InputError with the choices for another name."""
    known = {one.name: one for one in sets}
    if name not in known:
        raise unknown("perturbation", name, known)
    return known[name]
