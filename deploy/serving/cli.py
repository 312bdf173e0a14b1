"""The command ``stm-serve``: serve model files from a host that has neither torch nor mlflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stm_models.errors import InputError

__all__ = ["main", "options", "read_token", "serve_file"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``stm-serve``; returns the exit code (0 after a signal, 2 for bad input)."""
    arguments = _parser().parse_args(argv)
    try:
        serve_file(arguments.model, arguments)
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


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a server, whatever names its model."""
    parser.add_argument("--name", help="name in the address (default: the registered name, or stm-TASK)")
    parser.add_argument("--host", default="127.0.0.1", help="another than a loopback address needs a token")
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--provider", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of one run (default: every core)")
    parser.add_argument("--examples", metavar="DIR", help="folder of files that the page offers to try")
    parser.add_argument("--token-file", metavar="F", help="file with the bearer token that requests must carry")


def serve_file(path: str | Path, arguments: argparse.Namespace, name: str | None = None) -> str:
    """Serve one model file as `options` say until a signal; return the name that it had.

    Raises
    ------
    InputError
        For a file that is no model, a token that cannot be read, or a port that cannot be used.
    """
    from deploy.serving.server import serve
    from deploy.serving.session import Session

    token = read_token(arguments.token_file) if arguments.token_file else None
    session = Session(path, provider=arguments.provider, threads=arguments.threads)
    if session.provider_note:
        print(session.provider_note, file=sys.stderr)
    chosen: str = arguments.name or name or f"stm-{session.metadata.task}"
    serve({chosen: session}, arguments.host, arguments.port, token, examples=arguments.examples)
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stm-serve",
        description="Serve a model file (Open Inference Protocol V2 and MLflow's /invocations).",
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="model file written by 'stm export'")
    options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
