"""What both exporters need to know of a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stm_models.errors import InputError

__all__ = ["channel_of", "facts_of", "known_of"]

_INTERNAL = {
    *("group", "U", "chain", "converged", "draw", "sample", "replicate", "file_state", "seed", "points", "radius"),
    *("sites", "start", "iterations", "attempts", "residual"),
}
"""What the manifest has under another name, or what means nothing outside the data set."""


def channel_of(shape: tuple[int, ...], wanted: int, *, scalar_axes: int, what: str) -> int | None:
    """Return which entry of the leading axis to write; None where there is no such axis.

    Raises
    ------
    InputError
        When it does not exist.
    """
    count = shape[0] if len(shape) > scalar_axes else 1
    if wanted >= count:
        raise InputError(f"--channel is {wanted}, the data set has {count} {what}: choose 0 to {count - 1}")
    return wanted if len(shape) > scalar_axes else None


def known_of(attributes: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what a file name can say of a sample beside U, see `names.file_stem`."""
    config = attributes.get("config", {})
    known: dict[str, float | None] = {
        name: float(sample[name]) for name in ("index", "layer_distance", "dielectric", "filling") if name in sample
    }
    if "dielectric" not in known and "dielectric" in config:
        known["dielectric"] = config["dielectric"]
    return known


def facts_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's columns of a sample: label, group, chain, and every physical quantity; empty if unknown."""
    numbers = {name: value for name, value in sample.items() if isinstance(value, float) and name not in _INTERNAL}
    facts = {name: repr(value) if math.isfinite(value) else "" for name, value in numbers.items()}
    return {"U": repr(sample["U"]), "group": round(sample["group"]), "chain": round(sample["chain"]), **facts}
