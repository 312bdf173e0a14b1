"""Several processes behind one port: started, told of new versions, replaced when one dies, and ended together."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from deploy.serving.catalog import Catalog, Opener, Version, refused
from deploy.serving.listening import DRAIN_SECONDS, listen
from deploy.serving.logs import log_to_stderr
from deploy.serving.metrics import Metrics
from deploy.serving.plan import Plan
from deploy.serving.rate import BUCKETS
from deploy.serving.refusals import LOG
from deploy.serving.server import announce
from deploy.serving.wanted import Wanted
from deploy.serving.watching import Resolver, Watcher
from stm_models.errors import InputError

__all__ = ["supervise"]

_START_SECONDS = 300.0
_LOOK_SECONDS = 0.5
_STOP_SECONDS = DRAIN_SECONDS + 3.0  # within what deploy/recipes allow before they kill


def supervise(plan: Plan, wanted: Sequence[Wanted], resolve: Resolver | None) -> None:
    """Serve with ``plan.workers`` processes until SIGINT or SIGTERM; to be called from the main thread.

    Raises
    ------
    InputError
        When the port cannot be used, or a worker does not start.
    """
    listener, url = listen(plan.access.host, plan.access.port, plan.access.tls)
    stop = threading.Event()
    old = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    crew = _Crew(plan, wanted, listener)
    watched: Any = contextlib.nullcontext()
    if resolve is not None:
        followed = {one.name: one.address for one in wanted if one.followed}
        served = {one.name: one.version.label for one in wanted}
        watched = Watcher(followed, served, resolve, crew.offer, crew.problem, plan.poll_seconds, crew.back)
    try:
        with listener:
            crew.start(stop)
            if stop.is_set():
                return
            with watched:
                announce(url, [one.name for one in wanted])
                while not stop.wait(0.5):
                    crew.mend()
                crew.end()  # not after the watcher, which may wait for a store that is away
    finally:
        crew.end()
        for number, handler in old.items():
            signal.signal(number, handler)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    said: queue.SimpleQueue[Any]
    began: float


class _Crew:
    def __init__(self, plan: Plan, wanted: Sequence[Wanted], listener: socket.socket) -> None:
        self._plan, self._wanted, self._listener = plan, list(wanted), listener
        self._context = multiprocessing.get_context("spawn")
        names = [one.name for one in wanted]
        self._counters = self._context.RawArray("d", plan.workers * Metrics.width(names))
        self._buckets = self._context.RawArray("d", 2 * BUCKETS)
        self._workers: list[_Worker] = []
        self._refused: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def start(self, stop: threading.Event) -> None:
        """Start all workers and wait until every one answers, or until ``stop`` is set."""
        self._workers = [self._one(row) for row in range(self._plan.workers)]
        for worker in self._workers:
            # What ends this process too may have ended the worker a moment before.
            if not _ready(worker, stop) and not stop.wait(_LOOK_SECONDS):
                raise InputError("a worker process did not start: its last words are above; try with --workers 1")

    def mend(self) -> None:
        """Replace workers that have died, not more often than once in five seconds."""
        for row, worker in enumerate(self._workers):
            if not worker.process.is_alive() and time.monotonic() - worker.began > 5:
                LOG.error("worker %d ended with code %s: another one takes its place", row, worker.process.exitcode)
                with self._lock:
                    self._workers[row] = self._one(row)

    def offer(self, name: str, version: Version) -> bool:
        """Offer a version to all living workers; when one refuses it, the others go back, and all say so.

        A dead one is not asked: the one that takes its place starts with the version that is wanted then, and is told
        what was refused.
        """
        with self._lock:
            index = next(index for index, one in enumerate(self._wanted) if one.name == name)
            answers = self._ask(self._workers, ("offer", name, version))
            if answers and all(answer is True for _, answer in answers):
                self._wanted[index] = replace(self._wanted[index], version=version)
                self._refused.pop(name, None)
                return True
            took = [worker for worker, answer in answers if answer is True]
            self._ask(took, ("return", name, self._wanted[index].version))
            said = [answer for _, answer in answers if isinstance(answer, dict)]
            self._refused[name] = (
                said[0] if said else refused(version, "a worker process ended before it had loaded it")
            )
            self._tell("refused", name, self._refused[name])
            return False

    def problem(self, name: str, reason: str) -> None:
        """Tell all workers that an address cannot be resolved, or can be again."""
        self._tell("problem", name, reason)

    def back(self, name: str) -> None:
        """Tell all workers that the version which was not taken is wanted no more."""
        with self._lock:
            self._refused.pop(name, None)
            self._tell("refused", name, None)

    def end(self) -> None:
        """End all workers: those under way finish what they answer."""
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate()
        end = time.monotonic() + _STOP_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.1, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _ask(self, workers: Sequence[_Worker], message: tuple[str, str, Version]) -> list[tuple[_Worker, Any]]:
        """Return the workers that could be asked, and their answers."""
        asked = [worker for worker in workers if worker.process.is_alive() and _send(worker, message)]
        return [(worker, _answer(worker)) for worker in asked]

    def _tell(self, kind: str, name: str, value: Any) -> None:
        for worker in self._workers:
            _send(worker, (kind, name, value))

    def _one(self, row: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work,
            args=(self._plan, self._wanted, self._listener, theirs, self._counters, self._buckets, row),
            name=f"stm-worker-{row}",
            daemon=True,
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours, queue.SimpleQueue(), time.monotonic())
        threading.Thread(target=_hear, args=(worker,), daemon=True).start()
        for name, refusal in self._refused.items():
            _send(worker, ("refused", name, refusal))
        return worker


def _ready(worker: _Worker, stop: threading.Event) -> bool:
    return _reply(worker, stop) == "ready"


def _answer(worker: _Worker) -> Any:
    """Return True where a version was taken, else what is told of it, or None where the worker died."""
    answer = _reply(worker)
    while answer == "ready":  # said by one that took the place of another
        answer = _reply(worker)
    return answer


def _reply(worker: _Worker, stop: threading.Event | None = None) -> Any:
    """Return the next word of a worker; ``None`` once it is dead, as another thread may have heard, or ``stop``."""
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            return worker.said.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            if (stop is not None and stop.is_set()) or time.monotonic() > end or not worker.process.is_alive():
                return None


def _hear(worker: _Worker) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            worker.said.put(worker.pipe.recv())
    worker.said.put(None)


def _send(worker: _Worker, message: Any) -> bool:
    try:
        worker.pipe.send(message)
    except OSError:
        return False
    return True


def _work(
    plan: Plan,
    wanted: Sequence[Wanted],
    listener: socket.socket,
    pipe: Connection,
    counters: Any,
    buckets: Any,
    row: int,
) -> None:
    """Be one worker."""
    log_to_stderr()
    catalog = plan.catalog(wanted)
    cells = (
        np.frombuffer(counters).reshape(plan.workers, -1),
        np.frombuffer(buckets).reshape(BUCKETS, 2),
        row,
    )

    def obey(metrics: Metrics) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                _follow(pipe, catalog, plan.open, metrics)
        os.kill(os.getpid(), signal.SIGTERM)  # nobody is left who could

    @contextlib.contextmanager
    def watched(metrics: Metrics) -> Any:
        threading.Thread(target=obey, args=(metrics,), name="stm-obey", daemon=True).start()
        yield

    plan.serve(catalog, watched=watched, listener=listener, cells=cells, ready=lambda _: pipe.send("ready"))


def _follow(pipe: Connection, catalog: Catalog, opener: Opener, metrics: Metrics) -> None:
    """Do what the next message says."""
    kind, name, value = pipe.recv()
    model = catalog.models[name]
    if kind in ("offer", "return"):
        taken = model.offer(value, opener)
        if kind == "offer":  # who returns to what was served takes no new version
            metrics.event("swaps" if taken else "refused", name)
        pipe.send(taken or model.refused)
    elif kind == "refused":
        model.refused = value
    else:
        model.problem = value
        if value:
            metrics.event("poll_failures", name)
