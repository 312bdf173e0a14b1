"""Where simulations run: one `concurrent.futures.Executor` per kind of place."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from stm_models.errors import unknown

__all__ = ["LocalExecutor", "check", "create", "stop"]

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def check(spec: str) -> None:
    """Raise InputError, listing the choices, for a ``spec`` that `create` does not know."""
    if spec != "local":
        raise unknown("executor", spec, ["local"])


def create(spec: str, workers: int) -> Executor:
    """Return the executor named by ``spec`` with so many workers.

    Raises
    ------
    InputError
        For an unknown name, listing the choices.
    """
    check(spec)
    return LocalExecutor(workers)


def stop(executor: Executor) -> None:
    """End the executor now: queued work is dropped, and running work where the executor can."""
    if isinstance(executor, LocalExecutor):
        executor.hang_up()
    executor.shutdown(wait=True, cancel_futures=True)


class LocalExecutor(ProcessPoolExecutor):
    """Spawned processes of this machine, one numerical thread each, that never outlive their parent.

    Parameters
    ----------
    workers : int
        Number of processes.
    """

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Only the parent holds the other end: when it ends or hangs up, every worker reads end-of-file.
        listener, self._line = context.Pipe(duplex=False)
        super().__init__(workers, context, _start_worker, (listener, os.getpid()))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call; processes start here, with the environment that keeps them single-threaded."""
        with _single_threaded():
            return super().submit(fn, *args, **kwargs)

    def hang_up(self) -> None:
        """End the workers without waiting for what they are doing."""
        self._line.close()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            self._line.close()


@contextmanager
def _single_threaded() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(listener: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(listener, parent), daemon=True).start()


def _leave_with_parent(listener: Connection, parent: int) -> None:
    while not listener.poll(1.0) and os.getppid() == parent:
        pass
    os._exit(1)
