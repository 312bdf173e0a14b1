"""Checking that an array is what a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["as_batch", "check_shape"]


def check_shape(shape: tuple[int, ...], image: tuple[int, int, int], max_rows: int | None = None) -> None:
    """Refuse ``shape`` unless it is (batch, *image) with 1 to ``max_rows`` rows.

    Raises
    ------
    InputError
        Naming the shape got and the shape expected.
    """
    if len(shape) == 4 and shape[1:] == image and shape[0] >= 1 and (max_rows is None or shape[0] <= max_rows):
        return
    expected = f"(batch, {', '.join(map(str, image))})"
    if len(shape) != 4 or tuple(shape[1:]) != image:
        hint = "; give one image as a batch of one" if tuple(shape) == image else ""
        raise InputError(f"image has shape {_short(shape)}, expected {expected}{hint}")
    if shape[0] < 1:
        raise InputError(f"image has no rows: shape {_short(shape)}, expected {expected} with batch at least 1")
    raise InputError(f"image has {shape[0]} rows, at most {max_rows} in one request: send fewer at a time")


def as_batch(values: NDArray[Any], image: tuple[int, int, int], max_rows: int | None = None) -> NDArray[np.float32]:
    """Return ``values`` as an aligned, C-contiguous float32 batch, copied only where it must be.

    Parameters
    ----------
    values : (batch, C, H, W) float or int
    image : (C, H, W)
        What the model takes.
    max_rows : int, optional
        Largest batch.

    Raises
    ------
    InputError
        For another kind of number, another shape, too many rows, NaN or infinity (also where float32
        cannot hold the value).
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise InputError(f"image is {kind}, expected an array of float32 numbers")
    check_shape(values.shape, image, max_rows)
    if values.dtype == np.float32:
        flags = values.flags
        batch = values if flags.c_contiguous and flags.aligned else np.require(values, requirements=["C", "A"])
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            batch = np.require(values, dtype=np.float32, requirements=["C", "A"])
    finite = np.isfinite(batch)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(batch), -1).all(axis=1)))
        count = int((~finite[row]).sum())
        raise InputError(
            f"image row {row} has {count} values that are NaN, infinite or beyond float32: mask or fill them first"
        )
    return batch


def _short(shape: tuple[int, ...]) -> str:
    text = ", ".join(map(str, shape[:6])) + (", ..." if len(shape) > 6 else "")
    return f"({text}{',' if len(shape) == 1 else ''})"
