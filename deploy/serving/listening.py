"""Running an ASGI application on a port: until a signal, or beside the caller in a thread."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from deploy.serving.connection import connection_class
from deploy.serving.limits import Limits
from stm_models.errors import InputError

__all__ = ["DRAIN_SECONDS", "Tls", "beside", "listen", "until_signal"]

DRAIN_SECONDS = 15
"""In which requests under way are answered once the server is to end; the others are given up."""
_IDLE_SECONDS = 30
_HANDSHAKE_SECONDS = 10.0
"""For TLS: until then a connection counts against no limit."""


@dataclass(frozen=True)
class Tls:
    """Certificate chain and private key, as PEM files.

    Raises
    ------
    InputError
        When they cannot be read or do not fit together.
    """

    certificate: str | Path
    key: str | Path

    def __post_init__(self) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, lambda: "")
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"cannot use the certificate {self.certificate} with the key {self.key} ({reason}): give two PEM files "
                "that belong together, the key without a passphrase"
            ) from error


def until_signal(
    app: Any,
    listener: socket.socket,
    ready: Callable[[], None],
    *,
    tls: Tls | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> None:
    """Answer requests until SIGINT or SIGTERM, and those under way to their end; to be called from the main thread.

    Parameters
    ----------
    app
        ASGI application.
    listener : socket
        See `listen`.
    ready : callable
        Called once requests are answered.
    tls : Tls, optional
        Speak HTTPS.
    limits : Limits
        Of connections and bodies.
    """
    server = _Server(_config(app, tls, limits), ready)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again when it is done; these make that second one end in exit code 0.
    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def beside(
    app: Any,
    listener: socket.socket,
    *,
    tls: Tls | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> Iterator[None]:
    """Answer requests from a thread of this process while the block runs; parameters as in `until_signal`."""
    up = threading.Event()
    server = _Server(_config(app, tls, limits), up.set)

    def run() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            up.set()

    thread = threading.Thread(target=run, name="stm-serve", daemon=True)
    thread.start()
    up.wait()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def listen(host: str, port: int, tls: Tls | None = None) -> tuple[socket.socket, str]:
    """Open a port (0: any free one) and return the socket and its address as http://HOST:PORT.

    Raises
    ------
    InputError
        When the port is taken, or host or port are none of this machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}, expected 0 (any free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"host {host!r} is no address of this machine: use 127.0.0.1 or give --host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} on {host} is in use; give another with --port") from error
        raise InputError(f"cannot listen on port {port} of {host}: {error.strerror}; give another") from error
    number = listener.getsockname()[1]
    scheme = "http" if tls is None else "https"
    return listener, f"{scheme}://[{host}]:{number}" if ":" in host else f"{scheme}://{host}:{number}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl:  # uvicorn leaves it at the loop's minute
            loop: Any = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
        await super().startup(sockets)
        self._ready()


def _config(app: object, tls: Tls | None, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http=connection_class(limits, getattr(app, "express", None)),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=1024,
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None else str(tls.key),
    )
