"""Serve a model over HTTP (Open Inference Protocol V2 and MLflow's /invocations).

Example: stm serve models:/stm-hubbard@champion --port 8080
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from deploy.serving.cli import options, serve_file
from pipelines.addresses import MODEL, local_file

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help=MODEL)
    options(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve until interrupted."""
    registered = re.fullmatch(r"models:/+([^/@]+)[@/].*", args.model)
    name = serve_file(local_file(args.model), args, registered[1] if registered else None)
    return {"model": name, "stopped": True}


def describe(result: dict[str, Any]) -> str:
    """Say that it ended."""
    return f"{result['model']}: stopped"
