"""What a process takes of its machine, from ``/proc``; nothing where there is none."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["give_back", "open_files", "processor_seconds", "resident_bytes"]


def resident_bytes(processes: Sequence[int]) -> float:
    """Return the resident memory of all ``processes`` together."""
    return sum(_field(process, 23) * os.sysconf("SC_PAGE_SIZE") for process in processes)


def processor_seconds(processes: Sequence[int]) -> float:
    """Return the processor time, user and system, that all of them took so far."""
    return sum((_field(process, 13) + _field(process, 14)) / os.sysconf("SC_CLK_TCK") for process in processes)


def open_files(processes: Sequence[int]) -> float:
    """Return how many file descriptors they have open."""
    count = 0
    for process in processes:
        try:
            count += len(os.listdir(f"/proc/{process}/fd"))
        except OSError:
            continue
    return float(count)


def give_back() -> None:
    """Let the C library return freed memory to the system, after something large has gone."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _field(process: int, number: int) -> float:
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0.0
    return float(text.rpartition(")")[2].split()[number - 2])
