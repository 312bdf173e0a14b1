"""Show what a prediction depends on: the map as a picture and as an array.

Example: stm explain models:/stm-hubbard@champion quick.zarr --sample 0 --out why
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.addresses import MODEL
from pipelines.predict import ask, describe, reading_arguments

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("inputs", nargs=1, metavar="INPUT", help="data set (first sample, or --sample) or file")
    parser.add_argument("--method", default="gradient", help="explanation in the model file (default: gradient)")
    parser.add_argument("--out", required=True, metavar="DIR")
    reading_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Explain one image: of a data set the first, where no other is chosen."""
    if args.sample is None and Path(args.inputs[0]).is_dir():
        args.sample = 0
    return ask(args, args.method)
