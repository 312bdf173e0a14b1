"""Browse and compare runs in the browser; read-only.

Example: stm compare --port 8081
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from deploy.serving.listening import listen, until_signal
from deploy.serving.security import is_loopback
from stm_models.errors import InputError
from tracking.store import connect
from tracking.ui.app import create_app

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, default=8081, help="0 picks a free one (default: 8081)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve the page until interrupted."""
    if not is_loopback(args.host):
        raise InputError(
            f"--host is {args.host!r}: the page has no login, so only 127.0.0.1, ::1 or localhost; "
            "from another machine use a tunnel, e.g. ssh -L"
        )
    store = connect()
    listener, url = listen(args.host, args.port)
    with listener:
        until_signal(
            create_app(store),
            listener,
            lambda: print(f"ready: {url}  over {store.location}", file=sys.stderr, flush=True),
        )
    return {"store": store.location, "stopped": True}


def describe(result: dict[str, Any]) -> str:
    """Say that it ended."""
    return f"{result['store']}: stopped"
