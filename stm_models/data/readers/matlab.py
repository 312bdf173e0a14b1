"""Maps in MATLAB files of versions 5 to 7.2, and the bias values that belong to them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.arrays import LARGEST, finite, stack
from stm_models.data.readers.mat5 import Entry, entries, load
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import no_names
from stm_models.errors import InputError, unknown

__all__ = ["read"]

Array = NDArray[Any]

_KIND = "MATLAB file"


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read one (y, x) or (y, x, bias) array; the axes and biases as `stm_models.data.readers.read` says.

    Raises
    ------
    InputError
        When ``key`` is needed or unknown, the array is no map, or the file is MATLAB 7.3.
    """
    no_names(path, wanted)
    key = wanted.key
    arrays = entries(path)
    maps = {entry.name: entry for entry in arrays if not _is_vector(entry.shape)}
    listed = ", ".join(f"{name} {entry.shape}" for name, entry in maps.items())
    if not listed:
        listed = "vectors alone, a bias axis and no map," if arrays else "no numeric array"
    if key is None and len(maps) != 1:
        raise InputError(f"{path.name} has {listed}; expected one map, or choose with --key NAME")
    name = key or next(iter(maps))
    if name not in maps:
        raise unknown(f"key of {path.name}", name, maps)
    source = f"{path.name}[{name}]"
    array = load(path, maps[name])
    if array.ndim == 3:
        array = np.moveaxis(array, _bias_axis(array.shape), 0)
    values = stack(array, source)
    found = _bias(path, arrays, len(values)) if len(values) > 1 else None
    if found is None:
        return Measurement(values, None, None, source, kind=_KIND, channels=tuple(maps))
    bias, origin = found
    named = source if origin == path.name else f"{source} with biases of {origin}"
    return Measurement(values, None, bias, named, kind=_KIND, channels=tuple(maps))


def _bias(path: Path, arrays: Sequence[Entry], count: int) -> tuple[Array, str] | None:
    found = [(path, entry) for entry in arrays if _fits(entry, count)]
    if not found:
        for other in sorted(path.parent.glob("*.mat")):
            if other.name == path.name or other.stat().st_size > LARGEST:
                continue
            with contextlib.suppress(InputError, OSError):  # a broken neighbour is not this file's fault
                found += [(other, entry) for entry in entries(other) if _fits(entry, count)]
    if len(found) != 1:
        return None
    file, entry = found[0]
    bias = load(file, entry).ravel()
    return (bias.astype(np.float64), file.name) if finite(bias) else None


def _fits(entry: Entry, count: int) -> bool:
    return _is_vector(entry.shape) and math.prod(entry.shape) == count and not entry.is_complex


def _bias_axis(shape: tuple[int, ...]) -> int:
    first, second, third = shape
    if second == third != first:
        return 0
    return 1 if first == third != second else 2


def _is_vector(shape: tuple[int, ...]) -> bool:
    return sum(length != 1 for length in shape) <= 1
