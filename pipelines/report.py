"""Write runs, their comparison, pictures, searches and models as one HTML file, e.g. for a paper's supplement.

Example: stm report --experiment hubbard --out report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stm_models.errors import InputError
from stm_models.files import atomic_path, output_directory
from tracking.store import connect
from tracking.ui.report import build

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--experiment", metavar="E", help="whose runs (default: those of all)")
    parser.add_argument("--runs", metavar="A,B", help="ids of the runs to compare (default: the best trainings)")
    parser.add_argument("--search", default="", metavar="Q", help="of the table, as on the page of stm compare")
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: optuna.db beside the tracking store)"
    )
    parser.add_argument("--out", required=True, metavar="FILE.html")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the report."""
    out = Path(args.out).absolute()
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise InputError(f"--out is {args.out}: expected a file that ends in .html")
    chosen = [one for one in (args.runs or "").split(",") if one]
    store = connect(create=False)
    html, about = build(store, args.experiment or None, chosen, query=args.search, studies=args.storage or None)
    output_directory(out.parent)
    with atomic_path(out) as part:
        part.write_text(html, encoding="utf-8")
    return {"report": str(out), "bytes": out.stat().st_size, **about}


def describe(result: dict[str, Any]) -> str:
    """Say where it is and what is in it."""
    return (
        f"{result['report']}: {result['lines']} runs, {len(result['runs'])} of them compared, "
        f"{result['searches']} searches, {len(result['models'])} models, {result['bytes'] / 1e6:.1f} MB"
    )
