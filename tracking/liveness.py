"""Whether a process that said who it is still lives, as far as this machine can tell."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["gone", "here", "identity"]

_PROC = Path("/proc")


def identity() -> str:
    """Return who this process is: machine since its start, process namespace, process id, time it began.

    Empty where the system has no ``/proc``: nothing can then be told about it.
    """
    own = os.getpid()
    place, began = _place(), _began(own)
    return f"{place}/{own}/{began}" if place and began else ""


def gone(who: str) -> bool:
    """Tell whether the process called `identity` is certainly gone; False for one of another machine."""
    place, _, rest = who.partition("/")
    number, _, began = rest.partition("/")
    return bool(place) and place == _place() and _began(int(number)) != began


def here(who: str) -> bool:
    """Tell whether the process called `identity` is or was one of this machine since its start."""
    return bool(who) and who.partition("/")[0] == _place()


def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}.{os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _began(process: int) -> str:
    """Return the clock tick when it began; empty when it is gone, or dead and not yet collected."""
    try:
        # The name, in brackets, may hold anything.
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
