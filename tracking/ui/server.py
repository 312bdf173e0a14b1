"""Serving the comparison page on this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from stm_models.errors import InputError
from tracking.store import Store
from tracking.ui.app import create_app

__all__ = ["serve"]


def serve(
    store: Store, host: str = "127.0.0.1", port: int = 8081, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    port : int
        0 takes any free one.
    ready : callable, optional
        Called with the page's address once it can be opened.

    Raises
    ------
    InputError
        When the port is taken or the host is another machine's view of this one: there is no login.
    """
    with _listen(host, port) as listener:
        address = listener.getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        if ready is not None:
            ready(f"http://{name}:{address[1]}/")
        server = uvicorn.Server(uvicorn.Config(create_app(store), log_level="warning", access_log=False))
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    bare = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback = ipaddress.ip_address(bare).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InputError(
            f"--host got {host!r}: the page has no login, so only 127.0.0.1, ::1 or localhost; "
            "from another machine use a tunnel, e.g. ssh -L"
        )
    if not 0 <= port <= 65535:
        raise InputError(f"--port got {port}: expected 0 to 65535")
    listener = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}; give a free port with --port, or 0 for any"
        ) from error
    return listener
