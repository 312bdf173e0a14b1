"""Reading one real-space map, or a stack of maps over bias, from a file."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from stm_models.data.arrays import Extent, extent, finite, limit, stack
from stm_models.data.matlab import read_mat
from stm_models.errors import InputError, unknown
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.tasks.base import RawMap

__all__ = ["READABLE", "read", "select"]

READABLE = {
    ".npy": "(y, x) or (channel, y, x)",
    ".npz": "data (bias, y, x), optional bias and size_nm",
    ".mat": "MATLAB up to version 7.2, (y, x) or (y, x, bias)",
    ".dat": "text with columns x y value in units of a",
    ".txt": "text with columns x y value in units of a",
}
"""Suffixes that `read` knows and what it expects in them."""


def read(
    path: str | Path,
    *,
    key: str | None = None,
    bias: float | None = None,
    size_nm: Extent | None = None,
    channel: int | None = None,
) -> RawMap:
    """Read a map or a stack of maps.

    Parameters
    ----------
    path : path
        A file of one of the kinds in `READABLE`, at most 2 GiB.
    key : str, optional
        Array to take from a ``.mat`` or ``.npz`` file with several.
    bias, channel : float (V) or int, optional
        Keep one channel only, see `select`; none keeps all.
    size_nm : (height, width), optional
        Physical size of the field; wins over what the file says.

    Returns
    -------
    RawMap
        ``values`` (channel, y, x) float64, finite; for text ``points`` (n, 2) in nm.

    Raises
    ------
    InputError
        When the file is missing, empty, too large, truncated, of another kind, not numeric or not finite,
        when ``key`` is needed or unknown, or when the channel asked for does not exist.

    Notes
    -----
    Three-dimensional MATLAB arrays: the bias axis is the one whose length differs from the other two, equal
    ones, else the last. Their bias values (V) come from the only vector of that length in the same file, or
    else in the only other ``.mat`` file of the folder that has one; ``source`` then names it.
    """
    path = Path(path)
    reader = _reader(path)
    try:
        raw = reader(path, key)
    except InputError:
        raise
    except Exception as error:  # parsers meet foreign bytes here and raise whatever they like
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"cannot read {path.name} ({reason}); expected {_readable()}") from error
    if size_nm is not None:
        if raw.points is not None:
            raise InputError(f"{path.name}: size {size_nm} nm was given, but the file states positions; leave it out")
        raw = replace(raw, size_nm=extent(size_nm, path.name))
    if bias is not None or channel is not None:
        raw = select(raw, bias=bias, channel=channel)
    bad = raw.values.size - np.count_nonzero(np.isfinite(raw.values))
    if bad:
        raise InputError(
            f"{raw.source}: {bad} of {raw.values.size} values are NaN or infinite; fill or crop them first"
        )
    return raw


def select(raw: RawMap, bias: float | None = None, channel: int | None = None) -> RawMap:
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


def _reader(path: Path) -> Callable[[Path, str | None], RawMap]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; expected {_readable()}")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path.name} is empty; expected {_readable()}")
    limit(size, path.name)
    readers = {
        ".npy": _read_npy,
        ".npz": _read_npz,
        ".mat": read_mat,
        ".dat": _read_text,
        ".txt": _read_text,
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"cannot read {path.name}: kind {path.suffix or 'unknown'!r}; expected {_readable()}")
    return readers[path.suffix.lower()]


def _read_npy(path: Path, key: str | None) -> RawMap:
    if key is not None:
        raise InputError(f"{path.name} holds one array without a name, got key {key!r}; leave the key out")
    # A memory map compares the header's shape with the file's length before anything is allocated.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return RawMap(stack(array, path.name), None, None, path.name)


def _read_npz(path: Path, key: str | None) -> RawMap:
    with zipfile.ZipFile(path) as archive:
        limit(sum(member.file_size for member in archive.infolist()), path.name)
    with np.load(path, allow_pickle=False) as file:
        name = key or "data"
        if name not in file.files:
            raise unknown(f"key of {path.name}", name, file.files)
        source = f"{path.name}[{name}]"
        values = stack(file[name], source)
        bias = file["bias"] if "bias" in file.files else None
        size = file["size_nm"] if "size_nm" in file.files else None
        if bias is not None and (bias.shape != (len(values),) or not finite(bias)):
            raise InputError(f"{path.name}: bias has shape {bias.shape}; expected ({len(values)},) finite values in V")
        return RawMap(
            values,
            None if size is None else extent(size, path.name),
            None if bias is None else bias.astype(np.float64),
            source,
        )


def _read_text(path: Path, key: str | None) -> RawMap:
    if key is not None:
        raise InputError(f"{path.name} is a table without names, got key {key!r}; leave the key out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's about a file of comments only
        table = np.loadtxt(path, dtype=np.float64, ndmin=2, encoding="utf-8")
    if table.shape[1] != 3 or not len(table):
        raise InputError(f"{path.name}: got a table of shape {table.shape}; expected columns x y value in units of a")
    points = table[:, :2] * (LATTICE_CONSTANT / 10)
    if not np.isfinite(points).all():
        raise InputError(f"{path.name}: {np.sum(~np.isfinite(points))} positions are NaN or infinite; remove them")
    low, high = points.min(0), points.max(0)
    size = (float(high[1] - low[1]), float(high[0] - low[0]))
    return RawMap(table[:, 2].reshape(1, 1, -1), size, None, path.name, points)


def _readable() -> str:
    return "; ".join(f"{suffix} {what}" for suffix, what in READABLE.items())
