"""Where and when a request's images are computed: a bounded queue, threads, batches, or the event loop itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.model.stopping import start
from deploy.serving.batching import Batcher
from deploy.serving.catalog import Loaded
from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.refusals import busy
from stm_models.errors import InputError
from stm_models.machine import cores

__all__ = ["Compute", "Schedule"]

_SHORT_SECONDS = 1e-3
_SHORT_ALONE = 5e-3  # where runs wait for each other anyway
_TRIALS = 8
_SAMPLE = 16

_Result = TypeVar("_Result")
Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Schedule:
    """How runs are spread.

    Attributes
    ----------
    runs : int
        Runs at once; 0 for one for each core, two at least.
    batch_rows : int or None
        Images of several requests that are run together at most; 1 for never, None for 32 on CUDA and never on the CPU.
    batch_seconds : float
        How long the first of them waits for others.
    inline : bool
        Whether runs known to take less than a millisecond, or five where there is one at once, are made on the event
        loop: handing one to a thread costs more than it gains.
    """

    runs: int = 0
    batch_rows: int | None = None
    batch_seconds: float = 0.002
    inline: bool = True

    def __post_init__(self) -> None:
        if self.runs < 0:
            raise InputError(f"runs is {self.runs}, expected 1 or more, or 0 for one for each core")
        if self.batch_rows is not None and self.batch_rows < 1:
            raise InputError(f"batch-rows is {self.batch_rows}, expected at least 1 (no batches)")
        if not 0 <= self.batch_seconds <= 1:
            raise InputError(f"batch-delay is {self.batch_seconds * 1e3:g} ms, expected 0 to 1000")


class Compute:
    """Runs models for requests, and refuses more of them than it may hold."""

    def __init__(self, limits: Limits, metrics: Metrics, schedule: Schedule = Schedule()) -> None:
        self._limits, self._metrics, self._schedule = limits, metrics, schedule
        runs = schedule.runs or max(2, cores())
        self._short = _SHORT_SECONDS if runs > 1 else _SHORT_ALONE
        self._pool = ThreadPoolExecutor(runs, thread_name_prefix="stm-infer")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="stm-json")
        self._batcher = Batcher(self._pool, schedule.batch_seconds, metrics, lambda rows: self._count(-rows))
        self._rows = 0
        self._lock = threading.Lock()

    async def run(
        self,
        loaded: Loaded,
        image: NDArray[np.float32],
        names: tuple[str, ...],
        focus: NDArray[Any] | None = None,
        *,
        until: float,
    ) -> Outputs:
        """Compute the outputs of some images: at once, in a thread, or with those of other requests.

        Parameters
        ----------
        loaded : Loaded
            The version that answers.
        image : (rows, C, H, W) float32
        names : tuple of str
            The outputs.
        focus : (rows,) or (1,) integers, optional
            See `Session.run`.
        until : float
            Time of the event loop at which what is not done is given up.

        Returns
        -------
        dict of str to (rows, ...) float32

        Raises
        ------
        Refused
            503 when too many images wait, or when it took too long.
        InputError
            See `Session.run`.
        """
        rows = len(image)
        if self._rows + rows > self._limits.queue_rows and self._rows:
            raise busy(f"{self._rows} images wait to be computed, at most {self._limits.queue_rows} may")
        session = loaded.session
        key = (names, rows)
        if self.is_short(loaded, key):
            return self.now(loaded, key, image, focus)
        self._count(rows)
        most = self._schedule.batch_rows or (1 if session.provider == "cpu" else 32)
        if rows < most:
            return await self._within(self._batcher.add(loaded, image, names, focus, most), until)
        run = partial(self._timed, loaded, key, image, focus)
        return await self._within(start(self._pool, run, lambda: self._count(-rows)), until)

    def is_short(self, loaded: Loaded, key: tuple[tuple[str, ...], int]) -> bool:
        """Tell whether the outputs of so many rows are known to take so little that `now` is the way."""
        known = loaded.times.get(key)
        return (
            known is not None
            and known[0] >= _TRIALS
            and known[1] < self._short
            and self._schedule.inline
            and loaded.session.provider == "cpu"
            and self._schedule.batch_rows in (None, 1)
        )

    def now(
        self,
        loaded: Loaded,
        key: tuple[tuple[str, ...], int],
        image: NDArray[np.float32],
        focus: NDArray[Any] | None = None,
    ) -> Outputs:
        """Compute at once, on the event loop."""
        count, mean = loaded.times[key]
        if count % _SAMPLE:
            loaded.times[key] = (count + 1, mean)
            run = loaded.session.run
            return run(image, key[0]) if focus is None else run(image, key[0], focus)
        return self._timed(loaded, key, image, focus)

    async def aside(self, work: Callable[[], _Result], until: float) -> _Result:
        """Do ``work`` that takes long and computes nothing, like reading a large JSON body, in one of two threads.

        It is refused as a `run` that took too long.
        """
        return await self._within(start(self._readers, work), until)

    async def _within(self, future: asyncio.Future[_Result], until: float) -> _Result:
        try:
            async with asyncio.timeout_at(until):
                return await future
        except TimeoutError:
            raise busy(f"the answer took more than {self._limits.request_seconds:g} s", 5) from None
        finally:
            del future  # it holds the error, and the error this frame, with all that the request made

    def _timed(self, loaded: Loaded, key: Any, image: NDArray[np.float32], focus: NDArray[Any] | None) -> Outputs:
        began = time.thread_time()  # other processes' load tells nothing about the model
        names = key[0]
        run = loaded.session.run
        outputs = run(image, names) if focus is None else run(image, names, focus)
        seconds = time.thread_time() - began
        count, mean = loaded.times.get(key, (0, 0.0))
        if count or len(loaded.times) < 256:
            loaded.times[key] = (count + 1, mean + (seconds - mean) / min(count + 1, 16))
        return outputs

    def _count(self, rows: int) -> None:
        with self._lock:  # threads tell of their ends themselves
            self._rows += rows
            self._metrics.gauge("queue_rows", self._rows)
