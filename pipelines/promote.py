"""Make a run's model the champion, if it beats the baselines, and the champion on samples held out.

Example: stm promote hubbard
"""

from __future__ import annotations

import argparse
from typing import Any

from pipelines import promotion
from stm_models.tasks.registry import get
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("task", help="name of the task")
    parser.add_argument("--run", metavar="ID", help="default: the best run on the newest data set")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Promote or say why not."""
    return promotion.promote(connect(), get(args.task), args.run or None)


def describe(result: dict[str, Any]) -> str:
    """Give the verdict."""
    verdict = "is the champion now" if result["promoted"] else "was not promoted"
    return f"{result['model']} version {result['version']} {verdict}: {result['reason']}"
