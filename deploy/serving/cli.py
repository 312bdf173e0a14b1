"""The command ``stm-serve``: serve model files from a host that has neither torch nor mlflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stm_models.errors import InputError

__all__ = ["main", "read_token"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``stm-serve``; returns the exit code (0 after a signal, 2 for bad input)."""
    arguments = _parser().parse_args(argv)
    try:
        _serve(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def read_token(path: str | Path) -> str:
    """Read the bearer token from a file, without the white space around it.

    Raises
    ------
    InputError
        When the file cannot be read or is empty.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the token file {path}: {error}") from error
    if not token:
        raise InputError(f"the token file {path} is empty: write a long random word into it")
    return token


def _serve(arguments: argparse.Namespace) -> None:
    from deploy.serving.server import serve
    from deploy.serving.session import Session

    token = read_token(arguments.token_file) if arguments.token_file else None
    session = Session(arguments.model, provider=arguments.provider, threads=arguments.threads)
    if session.provider_note:
        print(session.provider_note, file=sys.stderr)
    name = arguments.name or f"stm-{session.metadata.task}"
    serve({name: session}, arguments.host, arguments.port, token)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stm-serve",
        description="Serve a model file (Open Inference Protocol V2 and MLflow's /invocations).",
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="model file written by 'stm export'")
    parser.add_argument("--name", help="name in the address (default: stm-TASK)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--provider", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of one run (default: every core)")
    parser.add_argument("--token-file", metavar="F", help="file with the bearer token that requests must carry")
    return parser


if __name__ == "__main__":
    sys.exit(main())
