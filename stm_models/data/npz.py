"""Reading .npz files of others: no pickle, no more than fits, and one kind of error for whatever is wrong."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read"]

LARGEST = 2**30
"""Bytes that all arrays of a file may have together."""


def read(path: str | Path, schema: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name.

    Raises
    ------
    ValueError
        When it is no such file, is damaged, of another ``schema``, or too large.
    """
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(entry.file_size for entry in file.infolist())
        if size > LARGEST:
            raise ValueError(f"{size:,} bytes of arrays, expected at most {LARGEST:,}")
        with np.load(path, allow_pickle=False) as file:
            content = {name: np.asarray(file[name]) for name in file.files}
    except (
        OSError, EOFError, KeyError, AttributeError, TypeError, SyntaxError, RuntimeError, NotImplementedError,
        MemoryError, OverflowError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise ValueError(str(error) or type(error).__name__) from error
    if str(content.get("schema")) != schema:
        raise ValueError(f"schema {content.get('schema')!s}, expected {schema}"[:200])
    return content
