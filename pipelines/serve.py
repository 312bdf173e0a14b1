"""Serve a model over HTTP (Open Inference Protocol V2 and MLflow's /invocations).

Example: stm serve models:/stm-hubbard@champion --port 8080
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from deploy.serving.cli import read_token
from deploy.serving.server import serve
from deploy.serving.session import Session
from tracking.models import resolve
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID or FILE.onnx")
    parser.add_argument("--host", default="127.0.0.1", help="another than a loopback address needs a token")
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one (default: 8080)")
    parser.add_argument("--provider", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, help="threads of one run (default: every core)")
    parser.add_argument("--token-file", metavar="F", help="file with the token that requests must carry")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Serve until interrupted."""
    token = read_token(args.token_file) if args.token_file else None
    path = args.model if args.model.endswith(".onnx") else resolve(connect(), args.model)
    session = Session(path, provider=args.provider, threads=args.threads)
    if session.provider_note:
        print(session.provider_note, file=sys.stderr)
    named = re.fullmatch(r"models:/+([^/@]+)[@/].*", args.model)
    name = named[1] if named else f"stm-{session.metadata.task}"
    serve({name: session}, args.host, args.port, token)
    return {"model": name, "stopped": True}


def describe(result: dict[str, Any]) -> str:
    """Say that it ended."""
    return f"{result['model']}: stopped"
