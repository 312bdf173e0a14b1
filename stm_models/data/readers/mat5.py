"""Numeric arrays in MATLAB files of level 5 (versions 5 to 7.2).

Our own parser rather than scipy.io.loadmat, which crashes the process on some damaged files (version 1.17.1, a few
flipped bytes in an uncompressed file). Format: MathWorks, "MAT-File Format", level 5. Every length is checked against
what there is before anything is taken, and compressed parts are unpacked no further than asked for.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stm_models.data.arrays import limit
from stm_models.errors import InputError

__all__ = ["Entry", "entries", "load"]

Content = TypeVar("Content", bytes, memoryview)

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800
_HEAD = 128
_CHUNK = 1024**2
_PREFIX = 4096  # bytes of a matrix that hold its name and shape


@dataclass(frozen=True)
class Entry:
    """A plain numeric array: where its element lies in the file, and its shape."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_complex: bool
    start: int
    length: int
    compressed: bool
    order: str  # "<" or ">"


def entries(path: Path) -> list[Entry]:
    """List the plain numeric arrays; structs, cells, text, sparse arrays and objects are passed over.

    Raises
    ------
    InputError
        For MATLAB 7.3 and for a file that is damaged or cut short.
    """
    size = path.stat().st_size
    found = []
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if len(head) < _HEAD or head[126:128] not in (b"IM", b"MI"):
            raise InputError(f"cannot read {path.name}: its MATLAB header is damaged or cut short")
        order = "<" if head[126:128] == b"IM" else ">"
        (version,) = struct.unpack(f"{order}H", head[124:126])
        if version >> 8 == 2:
            raise InputError(f"{path.name} is MATLAB 7.3 (HDF5); save it with -v7, or as .npz")
        start = _HEAD
        while start < size:
            file.seek(start)
            tag = file.read(8)
            kind, length = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (0, size)
            start += 8
            if length > size - start:
                raise _damaged(path)
            if kind in (_MATRIX, _COMPRESSED):
                content = file.read(min(length, _PREFIX))
                try:
                    entry = _entry(content, start, length, kind == _COMPRESSED, order)
                except (struct.error, zlib.error, ValueError, IndexError) as error:
                    raise _damaged(path) from error
                if entry is not None:
                    found.append(entry)
            start += length
    return found


def load(path: Path, entry: Entry) -> NDArray[Any]:
    """Return one array, first index first, of the type that the file states.

    Raises
    ------
    InputError
        When it is complex, too large, or damaged.
    """
    source = f"{path.name}[{entry.name}]"
    if entry.is_complex:
        raise InputError(f"{source} is complex; expected real numbers")
    count = math.prod(entry.shape)
    limit(8 * count, source)
    try:
        content = memoryview(_content(path, entry, 8 * count + _PREFIX))
        offset = 8 if entry.compressed else 0  # a compressed matrix has its own tag inside
        for _ in range(3):
            *_, offset = _element(content, offset, entry.order)
        kind, data, _ = _element(content, offset, entry.order)
        values = np.frombuffer(data, entry.order + _STORED[kind])
    except (struct.error, zlib.error, ValueError, KeyError) as error:
        raise _damaged(path) from error
    if len(values) != count:
        raise _damaged(path)
    # MATLAB stores whole numbers of any class in the smallest type that holds them.
    return values.astype(entry.dtype, copy=False).reshape(entry.shape, order="F")


def _entry(content: bytes, start: int, length: int, compressed: bool, order: str) -> Entry | None:
    if compressed:
        # At most so many bytes: a few kilobytes can unpack to gigabytes.
        content = zlib.decompressobj().decompress(content, _PREFIX)
        if struct.unpack(f"{order}I", content[:4]) != (_MATRIX,):
            return None
    _, flags, offset = _element(content, 8 if compressed else 0, order)
    (word,) = struct.unpack(f"{order}I", flags[:4])
    dtype = _CLASSES.get(word & 0xFF)
    if dtype is None:
        return None
    kind, lengths, offset = _element(content, offset, order)
    _, name, _ = _element(content, offset, order)
    shape = tuple(int(n) for n in np.frombuffer(lengths, f"{order}i4"))
    if kind != 5 or len(shape) < 2 or min(shape) < 0:
        raise ValueError
    return Entry(name.decode("latin-1"), shape, dtype, bool(word & _COMPLEX), start, length, compressed, order)


def _element(content: Content, offset: int, order: str) -> tuple[int, Content, int]:
    """Return type and bytes of the part at ``offset``, and where the next one begins."""
    kind, length = struct.unpack_from(f"{order}II", content, offset)
    if kind >> 16:
        kind, length, begin, after = kind & 0xFFFF, kind >> 16, offset + 4, offset + 8
        if length > 4:
            raise ValueError
    else:
        begin = offset + 8
        after = begin + -(-length // 8) * 8
    data = content[begin : begin + length]
    if len(data) < length:
        raise ValueError
    return kind, data, after


def _content(path: Path, entry: Entry, most: int) -> bytearray:
    """Read one element; more than ``most`` bytes, a missing end or a wrong check sum raises."""
    if not entry.compressed and entry.length > most:
        raise ValueError
    found = bytearray()
    stream = zlib.decompressobj()
    with path.open("rb") as file:
        file.seek(entry.start)
        left = entry.length
        while left and not stream.eof:
            part = file.read(min(left, _CHUNK))
            left -= len(part)
            if not part:
                raise ValueError
            found += stream.decompress(part, most + 1 - len(found)) if entry.compressed else part
            if len(found) > most:
                raise ValueError
    if entry.compressed and not stream.eof:
        raise ValueError
    return found


def _damaged(path: Path) -> InputError:
    return InputError(
        f"cannot read {path.name}: it is damaged or cut short; expected a MATLAB file of version 5 to 7.2"
    )
