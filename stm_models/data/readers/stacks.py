"""A file as an xarray: the same values as `read`, with named axes and units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stm_models.data.arrays import Extent
from stm_models.data.readers.opening import read
from stm_models.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["open_stack"]


def open_stack(
    path: str | Path,
    *,
    key: str | None = None,
    bias: float | None = None,
    size_nm: Extent | None = None,
    channel: int | str | None = None,
) -> xr.DataArray:
    """Read a file as `read` does, as an array with axes (bias, y, x).

    Parameters
    ----------
    path, key, bias, size_nm, channel
        See `read`.

    Returns
    -------
    xarray.DataArray
        float64 (bias, y, x); of scattered points (bias, point). Coordinates: ``bias`` (V) where the file says it,
        ``x`` and ``y`` of the pixels' centres (nm, or px where the size is unknown). Each has ``units``; attributes:
        ``units``, ``long_name`` (the signal), ``source``, ``kind``, ``channel_reason``, ``orientation``, ``notes``
        and the instrument's settings.

    Raises
    ------
    InputError
        As `read`, and where xarray is not installed.
    """
    try:
        import xarray as xr
    except ImportError as error:
        raise InputError("an array with named axes needs the package xarray: pip install 'stm-lab[train]'") from error
    found = read(path, key=key, bias=bias, size_nm=size_nm, channel=channel)
    coordinates: dict[str, Any] = {}
    if found.bias is not None:
        coordinates["bias"] = ("bias", found.bias, {"units": "V", "long_name": "sample bias"})
    values = found.values
    axes: tuple[str, ...] = ("bias", "y", "x")
    if found.points is not None:
        values, axes = values[:, 0], ("bias", "point")
        for column, axis in enumerate("xy"):
            coordinates[axis] = ("point", np.asarray(found.points)[:, column], {"units": "nm"})
    else:
        firsts, sizes = (found.unrecorded[0], 0), found.size_nm or values.shape[1:]
        for axis, first, count, size in zip("yx", firsts, values.shape[1:], sizes, strict=True):
            pixels = first + np.arange(count)
            centres = (pixels + 0.5) * size / count if found.size_nm else pixels
            coordinates[axis] = (axis, centres, {"units": "nm" if found.size_nm else "px"})
    attributes = {
        "units": found.unit or "unknown",
        "long_name": found.channel or "value",
        "source": found.source,
        "kind": found.kind,
        "channel_reason": found.reason,
        "channels": list(found.channels),
        "orientation": found.orientation,
        "notes": list(found.notes),
        **found.settings,
    }
    return xr.DataArray(values, coordinates, axes, name=found.channel or "value", attrs=attributes)
