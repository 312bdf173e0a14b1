"""An append-only log of one run on the local disk, with the files that belong to it.

Every line is a checksum and a JSON object (Python's, with NaN and Infinity). A line is handed to the system as soon as
it is recorded, so that a killed process loses nothing of what it recorded; the disk has it a second later at the
latest, or after 5 000 lines, so that a machine without power loses at most so much.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import threading
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from stm_models.errors import InputError
from stm_models.files import atomic_path, sha256

__all__ = [
    "PREFIX", "SYNC_SECONDS", "Record", "Spool", "add", "artifact", "claim", "intact", "mend", "read", "records",
    "remove", "root", "state", "tidy", "write_state",
]  # fmt: skip

Record = dict[str, Any]
"""One line of a log; its ``kind`` says what it holds (times in ms since 1970):

``start``, the first one
    ``id``, the run's identity; ``time``; ``store``, its address without a password; ``experiment`` and ``name``;
    ``parent``, the id of the run that it is nested in, and ``attach``, of the one that is taken up, or None; ``owner``,
    its process; ``tags``.
``params``, ``tags``
    ``values``, text by name; tags that say that a run is alive have a ``time``.
``metrics``
    ``values``, numbers by name, with ``step`` and ``time``.
``artifact``
    ``name`` of a file of the run, its ``sha256`` and ``size``; recorded just before the file is there.
``input``
    ``dataset``, as MLflow describes it, and its ``tags``.
``end``
    ``status``, ``tags`` and ``time``; ``owner``, whose end it is, where another process wrote it.
``damaged``
    Stands for a line that cannot be read.
"""

PREFIX = "spool_"
"""Begins the id of a run that has none from the store yet."""

SYNC_SECONDS = 1.0
_SYNC_LINES = 5000
_UNBEGUN = re.compile(r"\.[0-9a-f]{32}")
_LOG, _STATE, _LOCK, _FILES = "log.jsonl", "state.json", "lock", "files"


def root() -> Path:
    """Return the folder that holds the spools: STM_SPOOL, else ``.stm-spool`` in the working directory."""
    return Path(os.environ.get("STM_SPOOL") or ".stm-spool").absolute()


class Spool:
    """The log of a run in progress; its methods may be called from several threads.

    Parameters
    ----------
    start : dict
        First record, see `Record`, without its ``kind`` and the ``id`` that it gets here.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """

    def __init__(self, start: Record) -> None:
        self.id, base = uuid.uuid4().hex, root()
        self.folder = base / self.id
        # Under another name until it is locked and begun, so that nobody takes it for one that was left.
        part = base / f".{self.id}"
        try:
            self.lock = _made(base, part)
            self._log = os.open(part / _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._mutex, self._placing = threading.Lock(), threading.Lock()
            self._dirty = 0
            self.size = 0
            self.append({"kind": "start", "id": self.id, **start})
            os.fsync(self._log)
            part.rename(self.folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise InputError(
                f"cannot write the spool of a run to {base}: {error.strerror}; give another folder with STM_SPOOL"
            ) from error

    def append(self, record: Record) -> None:
        """Add one record.

        Raises
        ------
        InputError
            When the run has ended.
        OSError
            When the local disk is full; the log stays whole.
        """
        line = _line(record)
        with self._mutex:
            self._check()
            written = os.write(self._log, line)
            if written != len(line):
                os.ftruncate(self._log, self.size)
                raise OSError(28, os.strerror(28), str(self.folder / _LOG))
            self.size += written
            self._dirty += 1
            late = self._dirty >= _SYNC_LINES
        if late:
            self.sync()

    def sync(self) -> None:
        """Make what was appended outlive the machine."""
        if self._dirty and self._log >= 0:
            self._dirty = 0
            os.fdatasync(self._log)

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Yield where to write the file called ``name`` in the run; it is recorded when it is whole."""
        self._check()  # what was sent is removed, and would come back with this file alone
        target = self.folder / _FILES / checked(name)
        with ExitStack() as placing, atomic_path(target) as part:
            yield part
            record = {"kind": "artifact", "name": name, "sha256": sha256(part), "size": part.stat().st_size}
            # Of two threads with the same name the last record is of the file that stays.
            placing.enter_context(self._placing)
            # Before the file is there: what it replaces would be lost with a process that is killed in between.
            self.append(record)

    def file(self, name: str) -> Path | None:
        """Return the file or folder that was recorded as ``name``; ``None`` when there is none."""
        path = self.folder / _FILES / checked(name)
        return path if path.exists() else None

    def close(self) -> None:
        """Take no more; the folder stays, and stays locked by this process."""
        self.sync()
        with self._mutex:
            os.close(self._log)
            self._log = -1  # the next file that this process opens gets the number

    def _check(self) -> None:
        if self._log < 0:
            raise InputError(
                f"the run {self.id} has ended, nothing can be recorded in it any more: record before its block ends, "
                "or open it again with tracking.runs.existing(store, run.id)"
            )


def tidy(base: Path) -> None:
    """Remove what a killed process had not begun yet, and the folder ``base`` when nothing is in it.

    Whatever else lies there, such as hidden folders of a user who named one of his own with STM_SPOOL, stays.
    """
    with suppress(OSError), _locked(base, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for part in [path for path in base.iterdir() if _UNBEGUN.fullmatch(path.name)]:
            with suppress(OSError):  # its process is at it
                lock = claim(part)
                shutil.rmtree(part, ignore_errors=True)
                os.close(lock)
        base.rmdir()


def read(folder: Path, offset: int = 0, limit: int = 1000) -> list[tuple[Record, int]]:
    """Return records from ``offset`` on, each with the offset of the next one.

    What was torn at the end is left out. A line damaged in the middle is a record of kind ``damaged``.
    """
    found: list[tuple[Record, int]] = []
    with (folder / _LOG).open("rb") as log:
        log.seek(offset)
        for line in log:
            if not line.endswith(b"\n") or len(found) == limit:
                break
            offset += len(line)
            found.append((_record(line), offset))
    return found


def records(folder: Path, offset: int) -> Iterator[Record]:
    """Yield all records from ``offset`` on, as `read` returns them."""
    while found := read(folder, offset):
        for record, offset in found:  # noqa: B007
            yield record


def _made(base: Path, part: Path) -> int:
    """Make the folder of a spool and lock it; `tidy` does not come in between."""
    while True:
        base.mkdir(parents=True, exist_ok=True)
        try:
            with _locked(base, fcntl.LOCK_SH):
                (part / _FILES).mkdir(parents=True)
                return claim(part)
        except FileNotFoundError:
            if base.is_dir():
                raise
            # Somebody tidied the empty folder away.


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with nullcontext() if how & fcntl.LOCK_NB else suppress(OSError):  # a file system without locks
            fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def mend(folder: Path) -> None:
    """Cut off what was torn at the end of a log that nobody writes to any more."""
    with (folder / _LOG).open("rb+") as log:
        whole = log.read()
        log.truncate(whole.rfind(b"\n") + 1)


def add(folder: Path, record: Record) -> None:
    """Append to the log of somebody who is gone."""
    mend(folder)
    with (folder / _LOG).open("ab") as log:
        log.write(_line(record))
        log.flush()
        os.fsync(log.fileno())


def artifact(folder: Path, name: str) -> Path:
    """Return where the file of an artifact record is."""
    return folder / _FILES / checked(name)


def intact(folder: Path, record: Record) -> bool:
    """Tell whether the file of an artifact record is there as it was recorded."""
    path = artifact(folder, record["name"])
    return path.is_file() and path.stat().st_size == record["size"] and sha256(path) == record["sha256"]


def claim(folder: Path) -> int:
    """Lock a spool for this process; the system gives it free when the process is gone.

    Raises
    ------
    BlockingIOError
        When another process has it.
    OSError
        When it is not there.
    """
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def state(folder: Path) -> dict[str, Any]:
    """Return what is known of a delivery: ``offset``, ``run``, ``experiment``, ``store``, and what that ``refused``."""
    try:
        found: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"offset": 0, "run": None}
    return found


def write_state(folder: Path, values: dict[str, Any]) -> None:
    """Replace what is known of the delivery."""
    with atomic_path(folder / _STATE) as part:
        part.write_text(json.dumps(values), encoding="utf-8")


def remove(folder: Path, lock: int, refused: Sequence[str] = ()) -> None:
    """Delete a spool that was delivered, and give its lock free.

    Where something was ``refused``, or STM_SPOOL_KEEP is set, it is kept beside the others, in ``refused`` or ``sent``;
    a copy of one that is there already in ``sent-2`` and so on.
    """
    kept = "refused" if refused else "sent" if os.environ.get("STM_SPOOL_KEEP", "0") != "0" else None
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # others are there
            folder.parent.rmdir()
    else:
        places = (folder.parent / f"{kept}{end}" / folder.name for end in _endings())
        place = next(place for place in places if not place.exists())
        place.parent.mkdir(exist_ok=True)
        if refused:  # before it moves, so that it is never there without the reason
            with atomic_path(folder / "refused.txt") as part:
                part.write_text("\n".join(refused) + "\n", encoding="utf-8")
        folder.rename(place)
    os.close(lock)


def _endings() -> Iterator[str]:
    yield ""
    yield from (f"-{number}" for number in itertools.count(2))


def checked(name: str) -> PurePosixPath:
    """Return the name of a run's file as a path below some folder.

    Raises
    ------
    InputError
        When it leads out of there.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise InputError(f"a run's file cannot be called {name!r}: expected a relative path without '..'")
    return path


def _line(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> Record:
    checksum, _, text = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return {"kind": "damaged"}
    found: Record = json.loads(text)
    return found
