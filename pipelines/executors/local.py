"""Processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from pipelines.executors.base import SimulationExecutor, WorkerLost
from pipelines.executors.threads import VARIABLES

__all__ = ["LocalExecutor"]


class LocalExecutor(SimulationExecutor):
    """Spawned processes, one numerical thread each, that never outlive their parent.

    Each process has a thread of ours that feeds it and replaces it when it dies, so that a death costs
    nobody else's work.

    Parameters
    ----------
    workers : int
        Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        # Only the parent holds the other end: when it ends or hangs up, every worker reads end-of-file.
        self._listener, self._line = self._context.Pipe(duplex=False)
        self._own = threading.local()
        self._starting = threading.Lock()
        self._pools: list[ProcessPoolExecutor] = []
        self._feeders = ThreadPoolExecutor(workers, "worker")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call; its future raises `WorkerLost` when the process that does it is killed."""
        return self._feeders.submit(self._feed, fn, args, kwargs)

    def abandon(self) -> None:
        """End the workers without waiting for what they are doing."""
        self._feeders.shutdown(wait=False, cancel_futures=True)
        self._line.close()
        self.shutdown()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        self._feeders.shutdown(wait=wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait=wait)
        if wait:
            self._line.close()

    def _feed(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            # The process starts at the submission, with the environment that keeps it single-threaded.
            with self._starting, _single_threaded(), _deaf():
                future = self._process().submit(fn, *args, **kwargs)
            return future.result()
        except BrokenProcessPool as error:
            self._pools.remove(self._own.pool)
            del self._own.pool
            raise WorkerLost("a worker process was killed, out of memory perhaps") from error

    def _process(self) -> ProcessPoolExecutor:
        if not hasattr(self._own, "pool"):
            arguments = (self._listener, os.getpid())
            self._own.pool = ProcessPoolExecutor(1, self._context, _start_worker, arguments)
            self._pools.append(self._own.pool)
        pool: ProcessPoolExecutor = self._own.pool
        return pool


@contextmanager
def _single_threaded() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    """Keep Ctrl-C from processes that start meanwhile, until they ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(listener: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_leave_with_parent, args=(listener, parent), daemon=True).start()


def _leave_with_parent(listener: Connection, parent: int) -> None:
    while not listener.poll(1.0) and os.getppid() == parent:
        pass
    os._exit(1)
