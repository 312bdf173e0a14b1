"""Files that whoever runs the server offers to try a model with."""

from __future__ import annotations

from pathlib import Path

from stm_models.data.readers import READABLE
from stm_models.errors import InputError

__all__ = ["find_examples"]

_MOST = 24


def find_examples(folder: str | Path | None, most_bytes: int) -> list[Path]:
    """Return the readable files of a folder by name, the first ones; none without a folder.

    Only these can be asked for, by their number: no client names a path.

    Raises
    ------
    InputError
        When the folder is missing or holds nothing that can be read.
    """
    if folder is None:
        return []
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"--examples is {folder}, which is no folder: give one with files such as map.npy or scan.sxm")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in READABLE and path.is_file() and path.stat().st_size <= most_bytes
    ]
    if not found:
        raise InputError(f"--examples is {folder}, which has no file that can be read: {', '.join(READABLE)}")
    return found[:_MOST]
