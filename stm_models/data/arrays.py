"""What every array that comes from outside must satisfy before it becomes a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["LARGEST", "LARGEST_FILE", "Extent", "extent", "finite", "limit", "stack"]

Array = NDArray[Any]
Extent = tuple[float, float]

LARGEST = 384 * 1024**2
"""Bytes that a stack of maps may have as float64; with what reading it takes besides, less than 1 GiB."""
LARGEST_FILE = 2 * 1024**3
"""Bytes that a file may have; large ones are mapped into memory, never read whole."""


def stack(array: Array, source: str) -> Array:
    """Return a plain array of two or three axes as (channel, y, x) float64.

    Raises
    ------
    InputError
        Unless it holds real numbers, has two or three axes and fits into `LARGEST`.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InputError(f"{source}: got {getattr(array, 'dtype', type(array).__name__)}; expected real numbers")
    if array.ndim not in (2, 3) or not array.size:
        raise InputError(f"{source}: got shape {array.shape}; expected (y, x) or (channel, y, x)")
    limit(8 * array.size, source)
    cube = array if array.ndim == 3 else array[None]
    if isinstance(array, np.memmap):
        return np.array(cube, dtype=np.float64, order="C")
    # Without a second copy of what is float64 already: half of the memory that a large stack takes.
    return np.asarray(cube, dtype=np.float64)


def extent(size: Any, source: str) -> Extent:
    """Return (height, width) in nm, both positive and finite; anything else raises InputError."""
    values = np.asarray(size, np.float64)
    if values.shape != (2,) or not np.isfinite(values).all() or not (values > 0).all():
        raise InputError(f"{source}: size_nm is {values.tolist()}; expected height and width in nm, both positive")
    return float(values[0]), float(values[1])


def finite(values: Array) -> bool:
    """Tell whether these are real numbers without NaN or infinity."""
    return values.dtype.kind in "iuf" and bool(np.isfinite(values).all())


def limit(size: int, name: str, largest: int | None = None) -> None:
    """Raise InputError when ``size`` bytes are more than ``largest``, by default `LARGEST`."""
    largest = LARGEST if largest is None else largest
    if size > largest:
        raise InputError(
            f"{name} holds {size / 1024**3:.3g} GiB; expected at most {largest / 1024**3:.3g} GiB, so crop it first"
        )
