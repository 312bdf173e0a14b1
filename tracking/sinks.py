"""Where a run's records go: into its spool while it is in progress, straight to the store when it is past."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from stm_models.errors import InputError
from stm_models.files import sha256
from stm_models.unfinished import scratch
from tracking import spool, system
from tracking.delivery import Target
from tracking.keeper import Keeper
from tracking.parcel import Parcel
from tracking.sender import Sender
from tracking.spool import PREFIX, Record, Spool
from tracking.store import Store, first_line, patience

__all__ = ["Direct", "Sink", "Spooled"]

# Seconds that start and end wait for a store that makes no progress.
_REMOTE, _LOCAL = (8.0, 15.0), (60.0, 600.0)


class Sink(Protocol):
    """Takes records and files."""

    @property
    def link(self) -> str:
        """The page of the run, or the command that leads to it."""

    def append(self, record: Record) -> None:
        """Take one record."""

    def place(self, name: str) -> AbstractContextManager[Path]:
        """Yield where to write the file ``name`` of the run."""

    def file(self, name: str) -> Path | None:
        """Return the local copy of a file or folder that was taken."""


class Direct:
    """Sends at once; what the store refuses is an `InputError`."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._target = Target(store, run_id)

    @property
    def link(self) -> str:
        """The page of the run, or the command that leads to it."""
        return self._target.store.run_link(self._target.id)

    def append(self, record: Record, folder: Path = Path()) -> None:
        """Send one record."""
        refused = self._target.apply([record], folder)
        if refused:
            raise InputError(f"run {self._target.id} cannot be added to: {refused[0]}")

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Yield where to write the file, which is then sent."""
        with scratch() as temporary:
            path = spool.artifact(temporary, name)
            path.parent.mkdir(parents=True)
            yield path
            about = {"kind": "artifact", "name": name, "sha256": sha256(path), "size": path.stat().st_size}
            self.append(about, temporary)

    def file(self, name: str) -> Path | None:
        """Return nothing: no copy is kept."""
        return None


class Spooled:
    """A spool with the thread that sends it.

    Parameters
    ----------
    start : dict
        First record.

    Attributes
    ----------
    id : str
        The run's in the store, where that answers in seconds, else ``spool_`` and the run's identity.

    Raises
    ------
    InputError
        When the spool cannot be written, or the store refuses such a run.
    """

    def __init__(self, store: Store, start: Record) -> None:
        every = system.interval()
        self._spool = Spool(start)
        self._parcel = Parcel(self._spool.folder, self._spool.lock, fresh=True)
        self._sender = Sender.to(store)
        self._sender.add(self._parcel)
        self._sender.wait(self._parcel, Parcel.is_begun, patience(_times(store)[0]))
        if (error := self._parcel.blocked) is not None:
            self._parcel.done = True
            shutil.rmtree(self._spool.folder, ignore_errors=True)
            raise error if isinstance(error, InputError) else InputError(first_line(error)) from error
        self.id: str = start["attach"] or self._parcel.run or f"{PREFIX}{self._spool.id}"
        self._keeper = Keeper(self._spool, every)
        self.append, self.place, self.file = self._spool.append, self._spool.place, self._spool.file

    @property
    def link(self) -> str:
        """The page of the run, or the command that leads to it."""
        store, parcel = self._sender.store, self._parcel
        if not store.remote:
            return store.run_link(self.id)
        if parcel.run is None:
            return f"stm sync {parcel.folder.parent}"
        return f"{store.location}/#/experiments/{parcel.experiment}/runs/{parcel.run}"

    def end(self, status: str, tags: dict[str, str]) -> bool:
        """Close the run; return whether the store has all of it, which is waited for while it makes progress."""
        self._keeper.stop()
        self._spool.append({"kind": "end", "status": status, "tags": tags, "time": int(time.time() * 1000)})
        self._spool.close()
        self._parcel.blocked = None  # asked once more: what is left of a run that was deleted is set aside at its end
        self._sender.wait(self._parcel, Parcel.is_done, patience(_times(self._sender.store)[1]))
        for reason in self._parcel.refused:
            print(f"warning: run {self.id}: {self._sender.store.location} refuses {reason}", file=sys.stderr)
        return self._parcel.done


def _times(store: Store) -> tuple[float, float]:
    return _REMOTE if store.remote else _LOCAL
