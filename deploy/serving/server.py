"""Serving models on an address of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.serving.app import MAX_BODY_BYTES, MAX_ROWS, Decode, create_app, task_answers
from deploy.serving.listening import beside, listen, until_signal
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
    examples: str | Path | None = None,
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
    decode, max_body_bytes, max_rows, examples
        See `deploy.serving.app.create_app`.
    ready : callable, optional
        Called with the address once requests are answered; by default it is printed on stderr.

    Raises
    ------
    InputError
        When the port is taken or may not be used, or a token is missing.
    """
    app = _prepared(models, host, token, decode, max_body_bytes, max_rows, examples)
    listener, url = listen(host, port)
    with listener:
        until_signal(app, listener, lambda: (ready or _announcer(models))(url))


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
    examples: str | Path | None = None,
) -> Iterator[str]:
    """Serve ``models`` from a thread of this process while the block runs; yields the address.

    Parameters and errors as in `serve`.
    """
    app = _prepared(models, host, token, decode, max_body_bytes, max_rows, examples)
    listener, url = listen(host, port)
    with listener, beside(app, listener):
        yield url


def _prepared(
    models: Mapping[str, Session],
    host: str,
    token: str | None,
    decode: Decode | None,
    max_body_bytes: int,
    max_rows: int,
    examples: str | Path | None,
) -> Any:
    """Build the application with its models warmed up."""
    app = create_app(
        models,
        decode=decode,
        max_body_bytes=max_body_bytes,
        max_rows=max_rows,
        hosts=_hosts(host, token),
        token=token,
        examples=examples,
    )
    for session in models.values():
        session.warm_up()
    return app


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


def _announcer(models: Mapping[str, Session]) -> Callable[[str], None]:
    return lambda url: print(f"ready: {url}  model {', '.join(models)}", file=sys.stderr, flush=True)
