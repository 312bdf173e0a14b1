"""Running the images of several requests together, where that is faster than one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.stopping import start
from deploy.serving.catalog import Loaded
from deploy.serving.metrics import Metrics
from stm_models.errors import InputError

__all__ = ["Batcher"]

Outputs = dict[str, NDArray[np.float32]]


@dataclass
class _Job:
    image: NDArray[np.float32]
    focus: NDArray[Any] | None
    result: asyncio.Future[Outputs]


@dataclass
class _Batch:
    jobs: list[_Job] = field(default_factory=list)
    rows: int = 0
    timer: asyncio.TimerHandle | None = None


class Batcher:
    """Collects requests for the same outputs of the same version of a model.

    A batch is run when it has as many rows as it may, or when its first request has waited ``seconds``. One whose
    rows do not all give finite results is run again request by request, so that nobody gets another one's error. One
    whose requests were all given up is given up, too.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        Runs the batches.
    seconds : float
        Longest wait of a request for others.
    metrics : Metrics
    ended : callable
        Called, perhaps in a thread, with the rows of a batch once nothing of it waits or is computed any more.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, seconds: float, metrics: Metrics, ended: Callable[[int], None]
    ) -> None:
        self._pool, self._seconds, self._metrics, self._ended = pool, seconds, metrics, ended
        self._open: dict[tuple[int, tuple[str, ...], bool], tuple[Loaded, _Batch]] = {}

    def add(
        self,
        loaded: Loaded,
        image: NDArray[np.float32],
        names: tuple[str, ...],
        focus: NDArray[Any] | None,
        most: int,
    ) -> asyncio.Future[Outputs]:
        """Let a request wait for others; to be called on the event loop.

        Parameters
        ----------
        loaded : Loaded
            The version that answers.
        image : (rows, C, H, W) float32
        names : tuple of str
            The outputs.
        focus : (rows,) or (1,) integers, or None
            See `Session.run`.
        most : int
            Rows of a batch; it waits no longer when it has so many, or would have more.

        Returns
        -------
        Future of dict of str to (rows, ...) float32
            Raises what `Session.run` does. Who cancels it gives the request up.
        """
        loop = asyncio.get_running_loop()
        key = (id(loaded), names, focus is not None)
        if key in self._open and self._open[key][1].rows + len(image) > most:
            self._run(key)
        if key not in self._open:
            batch = _Batch()
            self._open[key] = (loaded, batch)
            batch.timer = loop.call_later(self._seconds, self._run, key)
        batch = self._open[key][1]
        job = _Job(image, focus, loop.create_future())
        batch.jobs.append(job)
        batch.rows += len(image)
        if batch.rows >= most:
            self._run(key)
        return job.result

    def _run(self, key: tuple[int, tuple[str, ...], bool]) -> None:
        loaded, batch = self._open.pop(key)
        if batch.timer is not None:
            batch.timer.cancel()
        jobs = [job for job in batch.jobs if not job.result.done()]
        if not jobs:
            self._ended(batch.rows)
            return
        if len(jobs) > 1:
            self._metrics.batch(sum(len(job.image) for job in jobs))
        # Its rows count to the end, also of requests that are given up: their batch waits for a thread all the same.
        done = start(self._pool, partial(_compute, loaded, key[1], jobs), lambda: self._ended(batch.rows))
        done.add_done_callback(lambda future: _hand_out(jobs, future))

        def look(_: object) -> None:
            if all(job.result.cancelled() for job in jobs):
                done.cancel()

        for job in jobs:
            job.result.add_done_callback(look)


def _compute(loaded: Loaded, names: tuple[str, ...], jobs: list[_Job]) -> list[tuple[_Job, Outputs | Exception]]:
    jobs = [job for job in jobs if not job.result.done()]  # some were given up before a thread was free
    if len(jobs) > 1:
        image = np.concatenate([job.image for job in jobs])
        focus = None
        if jobs[0].focus is not None:
            focus = np.concatenate([np.broadcast_to(job.focus, len(job.image)) for job in jobs])  # type: ignore[arg-type]
        try:
            outputs = _one(loaded, names, image, focus)
        except InputError:
            pass
        else:
            ends = np.cumsum([len(job.image) for job in jobs])[:-1]
            split = {name: np.split(values, ends) for name, values in outputs.items()}
            return [(job, {name: split[name][index] for name in names}) for index, job in enumerate(jobs)]
    return [(job, _tried(loaded, names, job.image, job.focus)) for job in jobs if not job.result.done()]


def _tried(
    loaded: Loaded, names: tuple[str, ...], image: NDArray[np.float32], focus: NDArray[Any] | None
) -> Outputs | Exception:
    try:
        return _one(loaded, names, image, focus)
    except InputError as error:
        # Without its frames: handed on as a value it would hold them, and they it, until a collection.
        return InputError(str(error))
    except Exception as error:  # the others' answers do not suffer
        return error


def _one(loaded: Loaded, names: tuple[str, ...], image: NDArray[np.float32], focus: NDArray[Any] | None) -> Outputs:
    return loaded.session.run(image, names) if focus is None else loaded.session.run(image, names, focus)


def _hand_out(jobs: list[_Job], future: asyncio.Future[list[tuple[_Job, Outputs | Exception]]]) -> None:
    failure = asyncio.CancelledError() if future.cancelled() else future.exception()
    results = [(job, failure) for job in jobs] if failure is not None else future.result()
    for job, result in results:
        if job.result.done():
            continue
        if isinstance(result, BaseException):
            job.result.set_exception(result)
        else:
            job.result.set_result(result)
