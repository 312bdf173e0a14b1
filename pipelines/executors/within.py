"""This very process, for places that may start no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipelines.executors.base import SimulationExecutor

__all__ = ["WithinExecutor", "childless"]


def childless() -> bool:
    """Return whether this process may have no children: a Dask worker under its nanny, say."""
    return multiprocessing.current_process().daemon


class WithinExecutor(SimulationExecutor):
    """One thread of this process."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "within")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call."""
        return self._thread.submit(fn, *args, **kwargs)

    def abandon(self) -> None:
        """Drop what is queued; a call that runs is finished."""
        self.shutdown(wait=False, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        self._thread.shutdown(wait=wait, cancel_futures=cancel_futures)
