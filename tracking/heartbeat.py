"""Signs of life of a run, for those on other machines, who cannot see its process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

__all__ = ["beating", "now", "silent"]

_TAG = "alive"  # when the run's process last said that it lives: seconds since 1970, by its own clock
_EVERY = 60.0  # seconds
_SILENT = 3600.0  # seconds, much more than clocks of machines differ and a store is away


def now() -> dict[str, str]:
    """Return the tag of a sign of life."""
    return {_TAG: f"{time.time():.0f}"}


def silent(tags: Mapping[str, str]) -> bool:
    """Tell whether a run has given no sign of life for an hour; False for one that never gave any."""
    return _TAG in tags and time.time() - float(tags[_TAG]) > _SILENT


@contextmanager
def beating(give: Callable[[Mapping[str, str]], object]) -> Iterator[None]:
    """Give a sign of life every minute within the block; one that is lost, with a store that is away, is no error."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_EVERY):
            with suppress(Exception):
                give(now())

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
