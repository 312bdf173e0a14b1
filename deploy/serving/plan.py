"""All settings of a server in one place, and the work of one process that follows them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.model.provider import Runtime
from deploy.model.session import Session
from deploy.serving.access import Access
from deploy.serving.catalog import Catalog
from deploy.serving.compute import Schedule
from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.server import serve
from deploy.serving.wanted import Wanted, open_model

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """How a server is to be run.

    Attributes
    ----------
    access, limits, schedule, runtime
        See their classes.
    examples : path, optional
        Folder of files that the page offers.
    poll_seconds : float
        Between two looks at what aliases name; 0 for never.
    workers : int
        Processes that share the port.
    """

    access: Access = Access()  # noqa: RUF009
    limits: Limits = Limits()  # noqa: RUF009
    schedule: Schedule = Schedule()  # noqa: RUF009
    runtime: Runtime = Runtime()  # noqa: RUF009
    examples: str | Path | None = None
    poll_seconds: float = 10.0
    workers: int = 1

    def open(self, path: Path) -> Session:
        """Load a model file."""
        run = self.runtime
        return Session(path, provider=run.provider, threads=run.threads, allow_cpu=run.allow_cpu, tf32=run.tf32)

    def catalog(self, wanted: Sequence[Wanted]) -> Catalog:
        """Load all models."""
        return Catalog(open_model(one, self.open) for one in wanted)

    def serve(
        self,
        catalog: Catalog,
        *,
        watched: Callable[[Metrics], AbstractContextManager[Any]] | None = None,
        listener: socket.socket | None = None,
        cells: Any = None,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        """Serve from this process until SIGINT or SIGTERM; to be called from its main thread.

        Parameters
        ----------
        catalog : Catalog
        watched, listener, ready
            See `deploy.serving.server.serve`.
        cells : (counters, buckets, row), optional
            Memory that worker processes share, see `deploy.serving.app.create_app`.

        Raises
        ------
        InputError
            When the port is taken or may not be used, or the folder of examples is missing or has none.
        """
        serve(
            catalog,
            access=self.access,
            limits=self.limits,
            schedule=self.schedule,
            examples=self.examples,
            watched=watched,
            listener=listener,
            cells=cells,
            ready=ready,
        )
