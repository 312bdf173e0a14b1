"""Serving models on an address of this machine."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.model.session import Session
from deploy.serving.access import Access
from deploy.serving.app import create_app
from deploy.serving.catalog import Catalog
from deploy.serving.compute import Schedule
from deploy.serving.inference import Decode, task_answers
from deploy.serving.limits import Limits
from deploy.serving.listening import Tls, beside, listen, until_signal
from deploy.serving.metrics import Metrics

__all__ = ["announce", "running", "serve"]


def serve(
    models: Mapping[str, Session] | Catalog,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    *,
    access: Access | None = None,
    limits: Limits = Limits(),  # noqa: B008
    watched: Callable[[Metrics], AbstractContextManager[Any]] | None = None,
    listener: socket.socket | None = None,
    ready: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Serve ``models`` until SIGINT or SIGTERM; to be called from the main thread.

    Parameters
    ----------
    models : Catalog, or mapping of str to Session
        By the name in the address.
    host, port, token
        Short for ``access``: see `Access`.
    access : Access, optional
        Where to listen, and for whom.
    limits : Limits
        What may be asked for.
    watched : callable, optional
        Called with the application's metrics; what it returns is entered while requests are answered.
    listener : socket, optional
        Opened already, for a server that shares its port.
    ready : callable, optional
        Called with the address once requests are answered; by default it is printed on stderr.
    **options
        ``decode``, ``schedule``, ``examples``, …: see `deploy.serving.app.create_app`.

    Raises
    ------
    InputError
        When the port is taken or may not be used, or a token or certificate is missing.
    """
    access = access or Access(host, port, token)
    catalog = models if isinstance(models, Catalog) else Catalog.of(models)
    app = create_app(catalog, limits=limits, hosts=access.hosts, token=access.token, probed=access.probed, **options)
    catalog.warm_up()
    url = ""
    if listener is None:
        listener, url = listen(access.host, access.port, access.tls)
    say = ready or (lambda url: announce(url, list(catalog.models)))
    with listener, nullcontext() if watched is None else watched(app.metrics):
        until_signal(app, listener, lambda: say(url), tls=access.tls, limits=limits)


@contextmanager
def running(
    models: Mapping[str, Session] | Catalog,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    *,
    tls: Tls | None = None,
    decode: Decode | None = task_answers,
    limits: Limits = Limits(),  # noqa: B008
    schedule: Schedule = Schedule(),  # noqa: B008
    max_body_bytes: int | None = None,
    max_rows: int | None = None,
    examples: str | Path | None = None,
) -> Iterator[str]:
    """Serve ``models`` from a thread of this process while the block runs; yields the address, http://HOST:PORT.

    Parameters
    ----------
    models : Catalog, or mapping of str to Session
        By the name in the address.
    host, port, token, tls
        See `Access`; by default any free port.
    decode : callable or None
        Makes the answers of ``/explain``; None leaves them out.
    limits : Limits
        What may be asked for.
    schedule : Schedule
        How runs are spread.
    max_body_bytes, max_rows : int, optional
        In place of ``body_bytes`` and ``rows`` of ``limits``.
    examples : path, optional
        Folder of files that the page offers.

    Raises
    ------
    InputError
        When the port is taken or may not be used, a token, certificate or example is missing, a limit is out of
        range, there are no models, or one has a name that cannot stand in an address.
    """
    access = Access(host, port, token, tls)
    catalog = models if isinstance(models, Catalog) else Catalog.of(models)
    given = {"body_bytes": max_body_bytes, "rows": max_rows}
    limits = replace(limits, **{name: value for name, value in given.items() if value is not None})
    app = create_app(
        catalog,
        decode=decode,
        limits=limits,
        schedule=schedule,
        hosts=access.hosts,
        token=token,
        probed=access.probed,
        examples=examples,
    )
    catalog.warm_up()
    listener, url = listen(access.host, access.port, tls)
    with listener, beside(app, listener, tls=tls, limits=limits):
        yield url


def announce(url: str, names: list[str]) -> None:
    """Say on stderr that requests are answered."""
    print(f"ready: {url}  model {', '.join(names)}", file=sys.stderr, flush=True)
