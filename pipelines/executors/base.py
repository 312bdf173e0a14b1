"""What every place can do where simulations and trials run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["SimulationExecutor", "WorkerLost"]


class WorkerLost(Exception):
    """The process that worked on a call has ended without an answer; the executor can be used on."""


class SimulationExecutor(Executor):
    """An executor whose future raises `WorkerLost` when its worker died, and InputError when the place is gone."""

    pieces: int | None = None
    """At most so many calls are worth submitting at once; None: as many as there are."""

    def submit_all(self, fn: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Future[Any]]:
        """Submit ``fn(*arguments)`` for each of ``calls``."""
        return [self.submit(fn, *arguments) for arguments in calls]

    @abstractmethod
    def abandon(self) -> None:
        """End now: queued work is dropped, and running work where the place can."""
