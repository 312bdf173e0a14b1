"""Reading one real-space map, or a stack of maps over bias, from a file of any kind."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from stm_models.data.arrays import LARGEST_FILE, Extent, extent, limit
from stm_models.data.readers.kinds import READABLE, check_content, readable
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.selection import select
from stm_models.errors import InputError, one_line

__all__ = ["read"]

_MODULES = {
    ".3ds": "grid",
    ".sxm": "scan",
    ".dat": "text",
    ".txt": "text",
    ".npy": "numpy_files",
    ".npz": "numpy_files",
    ".mat": "matlab",
    ".png": "picture",
    ".tif": "picture",
    ".tiff": "picture",
    ".sm4": "rhk",
}
# Each of these files holds one map per signal, so that a number names a signal.
_NUMBERED_SIGNALS = frozenset({".sxm"})
# In no unit does a signal reach this; flipped bits do, and squares of them overflow.
_LARGEST_VALUE = 1e30


def read(
    path: str | Path,
    *,
    key: str | None = None,
    bias: float | None = None,
    size_nm: Extent | None = None,
    channel: int | str | None = None,
) -> Measurement:
    """Read a map or a stack of maps.

    Parameters
    ----------
    path : path
        A file of one of the kinds in `READABLE`, at most 2 GiB, whose stack takes at most 384 MiB as float64.
    key : str, optional
        Array to take from a ``.mat`` or ``.npz`` file with several.
    bias : float, optional
        V; keep the nearest map only, see `select`.
    channel : int or str, optional
        A name is a signal of an instrument file, with or without its unit (``"LI Demod 1 X"``); ``"dI/dV"`` is the
        numerical derivative of its current. A number is a map of the stack, counted from zero; in a ``.sxm`` file,
        which has one map per signal, a signal. None takes the file's dI/dV and keeps all maps.
    size_nm : (height, width), optional
        Physical size of the field; wins over what the file says.

    Returns
    -------
    Measurement
        ``values`` (channel, y, x) float64, finite, below 1e30; for text ``points`` (n, 2) in nm.

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
    _check_file(path)
    suffix = path.suffix.lower()
    numbered = suffix in _NUMBERED_SIGNALS
    wanted = Wanted(key, channel if numbered or isinstance(channel, str) else None)
    found = _parse(path, _MODULES[suffix], wanted)
    if size_nm is not None:
        if found.points is not None:
            raise InputError(f"{path.name}: size {size_nm} nm was given, but the file states positions; leave it out")
        found = replace(found, size_nm=extent(size_nm, path.name))
    number = channel if isinstance(channel, int) and not numbered else None
    if bias is not None or number is not None:
        found = select(found, bias=bias, channel=number)
    bad = found.values.size - np.count_nonzero(np.isfinite(found.values))
    if bad:
        raise InputError(
            f"{found.source}: {bad} of {found.values.size} values are NaN or infinite; fill or crop them first"
        )
    largest = max(float(found.values.max()), -float(found.values.min()))
    if largest > _LARGEST_VALUE:
        raise InputError(
            f"{found.source}: its values reach {largest:.3g}; expected less than {_LARGEST_VALUE:g}: is it damaged?"
        )
    return found


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; expected {readable()}")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path.name} is empty; expected {readable()}")
    limit(size, path.name, LARGEST_FILE)
    check_content(path)


def _parse(path: Path, module: str, wanted: Wanted) -> Measurement:
    # One module per format, imported when its files are met: a server needs none of the others' libraries.
    reader = importlib.import_module(f"stm_models.data.readers.{module}")
    try:
        found: Measurement = reader.read(path, wanted)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"cannot read {path.name}: it asks for more memory than there is; is it damaged?") from error
    # Parsers of other people's meet foreign bytes here and raise whatever they like.
    except Exception as error:
        said = str(error).replace(str(path), path.name)  # a server's client need not know its folders
        reason = one_line(RuntimeError(said)) if said else one_line(error)
        raise InputError(f"cannot read {path.name} ({reason}); expected {READABLE[path.suffix.lower()]}") from error
    return found
