"""Tell where a model comes from, down to the data, or what was made from a data set.

Example: stm lineage models:/stm-hubbard@champion
"""

from __future__ import annotations

import argparse
from typing import Any

from tracking.lineage import trace
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("what", help="model address, run, FILE.onnx, DATA.zarr or digits of a data set's digest")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Trace it."""
    return trace(connect(create=False), args.what)


def describe(result: dict[str, Any]) -> str:
    """List origin and descendants."""
    width = max(map(len, result["origin"])) + 2
    lines = [f"{key:<{width}}{_words(value)}" for key, value in result["origin"].items()]
    for each in result["descendants"]:
        versions = [
            f"{one['model']}/{one['version']}" + "".join(f" @{alias}" for alias in one["aliases"])
            for one in each["versions"]
        ]
        count = len(each["evaluations"])
        lines.append(
            f"run {each['run']} ({each['name']}, {each['outcome']}): "
            f"{', '.join(versions) or 'no version'}; {count} evaluation{'' if count == 1 else 's'}"
        )
    return "\n".join(lines if result["descendants"] else [*lines, "nothing was trained on it"])


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
