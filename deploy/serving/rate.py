"""A token bucket for every client address, in a table of fixed size."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BUCKETS", "RateLimit"]

BUCKETS = 4096


class RateLimit:
    """Whether a client may ask now: ``rate`` requests per second, ``burst`` of them at once.

    Parameters
    ----------
    rate, burst : float
        ``burst`` 0 means two seconds' worth, 1 at least.
    cells : (BUCKETS, 2) float64, optional
        The buckets, zero at first: what is missing from full, and when that was. Worker processes share them. Two
        addresses can fall into one bucket; the table does not grow with addresses that somebody makes up.
    clock : callable
        Seconds; the same for every process.
    """

    def __init__(
        self,
        rate: float,
        burst: float = 0.0,
        cells: NDArray[np.float64] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate, self.burst = rate, burst or max(1.0, 2 * rate)
        self._cells: Any = np.zeros((BUCKETS, 2)) if cells is None else cells
        self._clock = clock

    def wait(self, client: str) -> float:
        """Take one token of ``client``; return 0, or the seconds until there is one."""
        cell = self._cells[zlib.crc32(client.encode()) % BUCKETS]
        now = self._clock()
        missing = max(0.0, float(cell[0]) - (now - float(cell[1])) * self.rate)
        if missing + 1 > self.burst:
            return (missing + 1 - self.burst) / self.rate
        cell[0], cell[1] = missing + 1, now
        return 0.0
