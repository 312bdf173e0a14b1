"""Browse and compare runs in the browser; read-only.

Example: stm compare --port 8081
"""

from __future__ import annotations

import argparse
import sys
from typing import Any
from urllib.parse import quote

from deploy.serving.listening import listen, until_signal
from deploy.serving.tokens import read_token
from stm_models.errors import InputError
from stm_models.hosts import LOOPBACK, is_loopback
from tracking.store import connect
from tracking.ui.app import create_app

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, default=8081, help="0 picks a free one (default: 8081)")
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: optuna.db beside the tracking store)"
    )
    parser.add_argument("--token-file", metavar="F", help="file with a token that every request must carry")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve the page until interrupted."""
    if not is_loopback(args.host):
        raise InputError(
            f"--host is {args.host!r}: expected 127.0.0.1, ::1 or localhost, since whoever reaches the page sees "
            "every run; from another machine use a tunnel, e.g. ssh -L"
        )
    token = read_token(args.token_file) if args.token_file is not None else None
    store = connect()
    app = create_app(store, studies=args.storage or None, token=token, hosts=(*LOOPBACK, args.host))
    app.state.site.reader.read()  # the first page need not wait for it
    listener, url = listen(args.host, args.port)
    address = url if token is None else f"{url}/?token={quote(token, safe='')}"
    with listener:
        until_signal(
            app, listener, lambda: print(f"ready: {address}  over {store.location}", file=sys.stderr, flush=True)
        )
    return {"store": store.location, "stopped": True}


def describe(result: dict[str, Any]) -> str:
    """Say that it ended."""
    return f"{result['store']}: stopped"
