"""The right to write one place, held by one process at a time; and folders that are whole or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stm_models.errors import InputError

__all__ = ["Busy", "Lease", "check_free", "only_writer", "whole_folder"]


class Busy(InputError):
    """Another process is writing there."""


class Lease:
    """The right to write a store: good while the file at ``path`` holds ``token``."""

    def __init__(self, path: Path, token: str) -> None:
        self.path, self.token = path, token

    def holds(self) -> bool:
        """Whether the call that we work for still goes on, or ended without another one taking over."""
        try:
            return self.path.read_text() == self.token
        except FileNotFoundError:
            return False


@contextmanager
def only_writer(out: Path) -> Iterator[Lease]:
    """Hold the lock file beside ``out``; it goes away with its holder's work.

    What is written in it tells workers that outlive a killed call that another one has taken over.
    """
    path = out.parent / f".{out.name}.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have removed the file between our two calls.
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(handle)
            raise Busy(f"another process is writing {out}: wait until it is done, or give another --out") from None
        os.close(handle)
    lease = Lease(path, uuid.uuid4().hex)
    os.truncate(handle, 0)
    os.write(handle, lease.token.encode())
    try:
        yield lease
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def check_free(out: Path) -> None:
    """Refuse what is there already, unless it is an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there: give another --out, or delete it")


@contextmanager
def whole_folder(out: Path, doing: str) -> Iterator[Path]:
    """Yield an empty folder beside ``out`` that becomes it at the end; whatever happens, ``out`` is whole or untouched.

    Parameters
    ----------
    out : Path
        Absolute; its parent is there.
    doing : str
        What is done meanwhile, for the folder's name.

    Raises
    ------
    InputError
        When ``out`` holds something, or another process is writing it.
    """
    part = out.parent / f".{out.name}.{doing}"
    with only_writer(out):
        check_free(out)
        shutil.rmtree(part, ignore_errors=True)  # what a killed process left
        part.mkdir()
        try:
            yield part
            part.rename(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
