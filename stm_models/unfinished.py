"""Files and folders that are being made, told from those that a killed process left.

Each is locked (flock) as long as its process is at it. Its name holds the machine, since a lock may hold on one alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing that was left is removed
    fcntl = None  # type: ignore[assignment]

__all__ = ["part_of", "scratch"]

_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_RANDOM = "[a-z0-9_]{8}"
_PART = re.compile(rf"\..*\.{_MACHINE}{_RANDOM}(\..*)?")
_SCRATCH = re.compile(rf"stm-{_MACHINE}{_RANDOM}")
_swept: set[tuple[str, re.Pattern[str]]] = set()


@contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """Yield an empty file beside ``path`` with its ending, to be moved to it; it is removed if it is still there."""
    _sweep(path.parent, _PART)

    def make() -> str:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.{_MACHINE}", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        return name

    part, lock = _locked(make)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder that is removed at the end; those that killed processes left are removed before."""
    place = Path(tempfile.gettempdir())
    _sweep(place, _SCRATCH)
    folder, lock = _locked(lambda: tempfile.mkdtemp(prefix=f"stm-{_MACHINE}", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(make: Callable[[], str]) -> tuple[Path, int]:
    while True:
        path = Path(make())
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # taken for left
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():  # else taken for left before it was locked
            return path, lock
        os.close(lock)


def _sweep(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what was left in a folder under such names, once in the life of this process."""
    if fcntl is None or (str(folder), names) in _swept:
        return
    _swept.add((str(folder), names))
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if names.fullmatch(path.name)]:
            _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # somebody else's, a link, or gone
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # somebody is at it
        pass
    finally:
        os.close(lock)
