"""Browse and compare runs in the browser; read-only.

Example: stm compare --port 8081
"""

from __future__ import annotations

import argparse
from typing import Any

from tracking.store import connect
from tracking.ui.server import serve

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, default=8081, help="0 picks a free one (default: 8081)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve the page until interrupted."""
    store = connect()
    serve(store, args.host, args.port)
    return {"store": store.location, "stopped": True}


def describe(result: dict[str, Any]) -> str:
    """Say that it ended."""
    return f"{result['store']}: stopped"
