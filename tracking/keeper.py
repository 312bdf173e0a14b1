"""The thread beside a recorded run: puts its log on the disk, gives signs of life, looks at the machine."""

from __future__ import annotations

import contextlib
import threading
import time

from tracking import heartbeat, system
from tracking.spool import SYNC_SECONDS, Spool

__all__ = ["ALIVE", "Keeper"]

ALIVE = 60.0
"""Seconds between two signs of life in the log."""


class Keeper:
    """Works from its making until `stop`.

    Parameters
    ----------
    every : float
        Seconds between two looks at the machine; 0 for none.
    """

    def __init__(self, spool: Spool, every: float) -> None:
        self._spool, self._every = spool, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="spool keeper")
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(10 * SYNC_SECONDS)

    def _work(self) -> None:
        began = time.monotonic()
        alive, sampled = began, began
        while not self._stop.wait(SYNC_SECONDS):
            now = time.monotonic()
            # A full disk is told by whoever records something.
            with contextlib.suppress(OSError):
                if self._every and now - sampled >= self._every:
                    sampled = now
                    values = {"step": round(now - began), "values": system.sample()}
                    self._spool.append({"kind": "metrics", "time": int(time.time() * 1000), **values})
                if now - alive >= ALIVE:
                    alive = now
                    self._spool.append({"kind": "tags", "time": int(time.time() * 1000), "values": heartbeat.now()})
                self._spool.sync()
