"""Calls in threads that end soon after nobody waits for them any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import onnxruntime

__all__ = ["ending", "options_here", "run_options", "start"]

_FATAL = 4

_Result = TypeVar("_Result")


def run_options() -> Any:
    """Return onnxruntime's options of a run that says nothing on stderr."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL
    return options


def options_here() -> Any:
    """Return the options of runs in this thread, whose ``terminate`` ends them; None outside `start`."""
    stop = _HERE.stop
    return None if stop is None else stop.options


def start(
    pool: ThreadPoolExecutor, call: Callable[[], _Result], ended: Callable[[], None] = lambda: None
) -> asyncio.Future[_Result]:
    """Make a call in a thread of ``pool``; who cancels what is returned gives it up.

    A model that is run then ends after the node that it is at, and what `ending` names is ended. A call that has not
    begun is left out, and what it holds goes at once.

    Parameters
    ----------
    ended : callable
        Called in that thread once the call has ended, or its turn has come and it was left out.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_Result] = loop.create_future()
    stop, calls = _Stop(), [call]

    def work() -> _Result:
        _HERE.stop = stop
        try:
            return calls.pop()()
        finally:
            _HERE.stop = None
            ended()

    def hand_over(done: Future[_Result]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(_hand_over, done, result)

    def given_up(result: asyncio.Future[_Result]) -> None:
        if result.cancelled():
            calls.clear()
            stop.set()

    result.add_done_callback(given_up)
    pool.submit(work).add_done_callback(hand_over)
    return result


@contextlib.contextmanager
def ending(end: Callable[[], None]) -> Iterator[None]:
    """Let another thread call ``end`` when the call that this thread makes is given up while the block runs."""
    stop = _HERE.stop
    if stop is None:
        yield
        return
    stop.add(end)
    try:
        yield
    finally:
        stop.remove(end)


class _Stop:
    """Ends what one call does, from another thread."""

    def __init__(self) -> None:
        self.options = run_options()
        self._set = False
        self._ends: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        self.options.terminate = True
        with self._lock:
            self._set = True
            for end in self._ends:
                end()

    def add(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.append(end)
            if self._set:
                end()

    def remove(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.remove(end)


class _Here(threading.local):
    """What ends the call that this thread makes."""

    stop: _Stop | None = None


_HERE = _Here()


def _hand_over(done: Future[_Result], result: asyncio.Future[_Result]) -> None:
    if result.done():
        return
    error = done.exception()
    if error is None:
        result.set_result(done.result())
    else:
        result.set_exception(error)
