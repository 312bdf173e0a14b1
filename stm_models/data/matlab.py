"""Maps in MATLAB files up to version 7.2, and the bias values that belong to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat

from stm_models.data.arrays import LARGEST, finite, limit, stack
from stm_models.errors import InputError, unknown
from stm_models.tasks.base import RawMap

__all__ = ["read_mat"]

Array = NDArray[Any]

_NUMERIC = {
    "double", "single", "logical",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
}  # fmt: skip


def read_mat(path: Path, key: str | None) -> RawMap:
    """Read one (y, x) or (y, x, bias) array; the axes and biases as `stm_models.data.readers.read` says.

    Raises
    ------
    InputError
        When ``key`` is needed or unknown, the array is no map, or the file is MATLAB 7.3.
    """
    shapes = _arrays(path)
    maps = {name: shape for name, shape in shapes.items() if not _is_vector(shape)}
    listed = ", ".join(f"{name} {shape}" for name, shape in maps.items()) or "no numeric array"
    if key is None and len(maps) != 1:
        raise InputError(f"{path.name} has {listed}; expected one map, or choose with --key NAME")
    name = key or next(iter(maps))
    if name not in maps:
        raise unknown(f"key of {path.name}", name, maps)
    limit(8 * math.prod(maps[name]), path.name)
    source = f"{path.name}[{name}]"
    array = loadmat(path, variable_names=[name])[name]
    if array.ndim == 3:
        array = np.moveaxis(array, _bias_axis(array.shape), 0)
    values = stack(array, source)
    found = _bias(path, shapes, len(values)) if len(values) > 1 else None
    if found is None:
        return RawMap(values, None, None, source)
    bias, origin = found
    return RawMap(values, None, bias, source if origin == path.name else f"{source} with biases of {origin}")


def _arrays(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the plain numeric arrays; structs, cells, text and objects are never loaded."""
    try:
        entries = whosmat(path)
    except NotImplementedError as error:
        raise InputError(f"{path.name} is MATLAB 7.3 (HDF5); save it with -v7, or as .npz") from error
    return {name: tuple(shape) for name, shape, kind in entries if kind in _NUMERIC}


def _bias(path: Path, shapes: Mapping[str, tuple[int, ...]], count: int) -> tuple[Array, str] | None:
    own = [name for name, shape in shapes.items() if _is_vector(shape) and math.prod(shape) == count]
    found = [(path, name) for name in own]
    if not own:
        for other in sorted(path.parent.glob("*.mat")):
            if other.name == path.name or other.stat().st_size > LARGEST:
                continue
            try:
                arrays = _arrays(other)
            except Exception:  # noqa: S112  a broken neighbour is not this file's fault
                continue
            found += [(other, n) for n, s in arrays.items() if _is_vector(s) and math.prod(s) == count]
    if len(found) != 1:
        return None
    file, name = found[0]
    bias = np.asarray(loadmat(file, variable_names=[name])[name]).ravel()
    return (bias.astype(np.float64), file.name) if finite(bias) else None


def _bias_axis(shape: tuple[int, ...]) -> int:
    first, second, third = shape
    if second == third != first:
        return 0
    return 1 if first == third != second else 2


def _is_vector(shape: tuple[int, ...]) -> bool:
    return sum(length != 1 for length in shape) <= 1
