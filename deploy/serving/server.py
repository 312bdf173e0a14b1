"""Running the application: the port, the signals, and when it is ready."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import uvicorn

from deploy.serving.app import MAX_BODY_BYTES, MAX_ROWS, Decode, create_app, task_answers
from deploy.serving.security import LOOPBACK, is_loopback
from deploy.serving.session import Session
from stm_models.errors import InputError

__all__ = ["create_app", "running", "serve"]


def serve(
    models: Mapping[str, Session],
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    *,
    decode: Decode | None = task_answers,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_rows: int = MAX_ROWS,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve ``models`` until SIGINT or SIGTERM; to be called from the main thread.

    Parameters
    ----------
    models : mapping of str to Session
        By the name in the address.
    host : str
        Address to listen on; another than a loopback one needs a token.
    port : int
        0 picks a free one.
    token : str, optional
        Bearer token that requests must carry.
    decode, max_body_bytes, max_rows
        See `deploy.serving.app.create_app`.
    ready : callable, optional
        Called with the address once requests are answered; by default it is printed on stderr.

    Raises
    ------
    InputError
        When the port is taken or may not be used, or a token is missing.
    """
    app = create_app(
        models,
        decode=decode,
        max_body_bytes=max_body_bytes,
        max_rows=max_rows,
        hosts=_hosts(host, token),
        token=token,
    )
    listener = _listen(host, port)
    with listener:
        url = _url(host, listener)
        for session in models.values():
            session.warm_up()
        server = _Server(_config(app), lambda: (ready or _announcer(models))(url))

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
def running(
    models: Mapping[str, Session],
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    *,
    decode: Decode | None = task_answers,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_rows: int = MAX_ROWS,
) -> Iterator[str]:
    """Serve ``models`` from a thread of this process while the block runs; yields the address.

    Parameters and errors as in `serve`.
    """
    app = create_app(
        models,
        decode=decode,
        max_body_bytes=max_body_bytes,
        max_rows=max_rows,
        hosts=_hosts(host, token),
        token=token,
    )
    with _listen(host, port) as listener:
        for session in models.values():
            session.warm_up()
        up = threading.Event()
        server = _Server(_config(app), up.set)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                up.set()

        thread = threading.Thread(target=run, name="stm-serve", daemon=True)
        thread.start()
        up.wait()
        try:
            yield _url(host, listener)
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )


def _hosts(host: str, token: str | None) -> tuple[str, ...] | None:
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise InputError("the token must be of printable ASCII characters without spaces, and not empty")
    if is_loopback(host):
        return (*LOOPBACK, host)
    if token is None:
        raise InputError(
            f"host {host} can be reached from other machines and needs a token: "
            "give --token-file, or use --host 127.0.0.1"
        )
    return None


def _listen(host: str, port: int) -> socket.socket:
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
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} on {host} is in use; give another with --port") from error
        raise InputError(f"cannot listen on port {port} of {host}: {error.strerror}; give another") from error
    return listener


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announcer(models: Mapping[str, Session]) -> Callable[[str], None]:
    return lambda url: print(f"ready: {url}  model {', '.join(models)}", file=sys.stderr, flush=True)
