"""NumPy's own files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from stm_models.data.arrays import LARGEST_FILE, extent, finite, limit, stack
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import no_names
from stm_models.errors import InputError, unknown

__all__ = ["read"]


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read ``.npy`` (y, x) or (channel, y, x), or ``.npz`` with ``data`` and optional ``bias`` and ``size_nm``.

    Pickled objects are refused.

    Raises
    ------
    InputError
        Unless the array is a map of real numbers; for a key that is needed, unknown, means nothing or is there twice.
    """
    no_names(path, wanted)
    return _npy(path, wanted.key) if path.suffix.lower() == ".npy" else _npz(path, wanted.key)


def _npy(path: Path, key: str | None) -> Measurement:
    if key is not None:
        raise InputError(f"{path.name} holds one array without a name, got key {key!r}; leave the key out")
    # A memory map compares the header's shape with the file's length before anything is allocated.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Measurement(stack(array, path.name), None, None, path.name, kind="NumPy array")


def _npz(path: Path, key: str | None) -> Measurement:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    limit(sum(entry.file_size for entry in entries), path.name, LARGEST_FILE)
    sizes: dict[str, int] = {}
    for entry in entries:
        array = entry.filename.removesuffix(".npy")
        if array in sizes:
            raise InputError(f"{path.name} holds {array[:60]!r} more than once; expected one of a name: save it again")
        sizes[array] = entry.file_size
    with np.load(path, allow_pickle=False) as file:
        name = key or "data"
        if name not in file.files:
            raise unknown(f"key of {path.name}", name, file.files)
        source = f"{path.name}[{name}]"
        for member in (name, "bias", "size_nm"):
            limit(sizes.get(member, 0), source)
        values = stack(file[name], source)
        bias = file["bias"] if "bias" in file.files else None
        size = file["size_nm"] if "size_nm" in file.files else None
        if bias is not None and (bias.shape != (len(values),) or not finite(bias)):
            raise InputError(f"{path.name}: bias has shape {bias.shape}; expected ({len(values)},) finite values in V")
        return Measurement(
            values,
            None if size is None else extent(size, path.name),
            None if bias is None else bias.astype(np.float64),
            source,
            kind="NumPy archive",
            channels=tuple(file.files),
        )
