"""Serve models over HTTP (Open Inference Protocol V2 and MLflow's /invocations), with a page at /.

Example: stm serve models:/stm-hubbard@champion --port 8080
"""

from __future__ import annotations

import argparse
from typing import Any

from deploy.serving.cli import options, serve_models
from pipelines.addresses import MODEL, served_version

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", nargs="+", metavar="[NAME=]MODEL", help=f"{MODEL}; an alias is followed")
    options(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve until interrupted."""
    return {"models": serve_models(args.model, args, served_version), "stopped": True}


def describe(result: dict[str, Any]) -> str:
    """Say that it ended."""
    return f"{', '.join(result['models'])}: stopped"
