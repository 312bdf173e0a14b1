"""Spools that nobody sends any more: of processes that were killed, or whose store was away to the end."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stm_models.errors import InputError
from tracking import liveness, spool
from tracking.parcel import Parcel
from tracking.store import first_line

__all__ = ["close_abandoned", "take"]

_IDENTITY = re.compile("[0-9a-f]{32}")
_SILENT = 600.0  # seconds without a sign of life, of which there is one each minute


def _warn(error: BaseException) -> None:
    print(f"warning: {first_line(error)}", file=sys.stderr)


def take(base: Path, refuse: Callable[[InputError], None] = _warn) -> Iterator[Parcel]:
    """Lock the spools in ``base``, or that it is, which nobody has; those begun first before the others.

    ``refuse`` is told of those that this user may not write.
    """
    found = []
    for folder in [base] if _IDENTITY.fullmatch(base.name) else sorted(base.iterdir()) if base.is_dir() else []:
        if not _IDENTITY.fullmatch(folder.name):
            continue
        try:
            lock = spool.claim(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # somebody is at it, or has just finished it
        except OSError as error:
            refuse(InputError(
                f"the spool {folder} cannot be taken: {error.strerror}; copy it to a folder that you may write, or "
                "send it as the user who recorded it"
            ))  # fmt: skip
            continue
        try:
            found.append(Parcel(folder, lock))
        except (OSError, InputError) as error:
            os.close(lock)
            _warn(error)
    yield from sorted(found, key=lambda parcel: parcel.start["time"])


def close_abandoned(parcel: Parcel) -> bool:
    """Write the end of a run whose process is gone; return whether the log has an end now.

    A process of another machine is taken for gone after ten minutes without a sign of life. Should it live, what is
    sent of it later opens and closes the run again.
    """
    last, offset = parcel.start["time"], 0
    while found := spool.read(parcel.folder, offset):
        for record, offset in found:  # noqa: B007
            last = max(last, record.get("time", 0))
            if record["kind"] == "end":
                return True
    owner = parcel.start["owner"]
    if not liveness.gone(owner) and time.time() - last / 1000 < _SILENT:
        return False
    tags = {"outcome": "killed"}
    spool.add(parcel.folder, {"kind": "end", "status": "KILLED", "tags": tags, "time": last, "owner": owner})
    return True
