"""Choosing one map of a stack."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from stm_models.errors import InputError
from stm_models.tasks.inputs import RawMap

__all__ = ["select"]

Map = TypeVar("Map", bound=RawMap)


def select(raw: Map, bias: float | None = None, channel: int | None = None) -> Map:
    """Keep one channel: the one nearest to ``bias`` in V, or number ``channel`` from zero.

    Raises
    ------
    InputError
        When several channels exist and none is chosen, both are given, the bias axis is unknown, or the
        choice lies outside (a bias by more than one step of the axis).
    """
    count = len(raw.values)
    if bias is not None and channel is not None:
        raise InputError(f"got both bias {bias:g} V and channel {channel}; give one of them")
    if channel is not None:
        if not 0 <= channel < count:
            raise InputError(f"{raw.source}: channel {channel} does not exist; choose 0 to {count - 1}")
        index = channel
    elif bias is not None:
        index = _nearest(raw, bias)
    elif count == 1:
        return raw
    elif raw.bias is None:
        raise InputError(f"{raw.source} has {count} channels; choose one with --channel 0 to {count - 1}")
    else:
        raise InputError(
            f"{raw.source} has {count} channels, {raw.bias.min():g} to {raw.bias.max():g} V; choose one with --bias V"
        )
    at = f" at {raw.bias[index]:g} V" if raw.bias is not None else f" channel {index}" if count > 1 else ""
    return replace(
        raw,
        values=raw.values[index : index + 1],
        bias=None if raw.bias is None else raw.bias[index : index + 1],
        source=raw.source + at,
    )


def _nearest(raw: RawMap, bias: float) -> int:
    if raw.bias is None:
        raise InputError(
            f"{raw.source}: bias {bias:g} V was asked for, but the file does not state its biases; "
            f"choose with --channel 0 to {len(raw.values) - 1}"
        )
    index = int(np.argmin(np.abs(raw.bias - bias)))
    step = float(np.max(np.diff(np.sort(raw.bias)), initial=0.0)) or 1e-3
    if not abs(raw.bias[index] - bias) <= step * (1 + 1e-6):
        raise InputError(
            f"{raw.source}: bias {bias:g} V lies outside {raw.bias.min():g} to {raw.bias.max():g} V; "
            "give one within it, in V"
        )
    return index
