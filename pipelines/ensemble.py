"""Join finished trainings that differ by their seeds into one model that answers with their mean and their spread.

The ensemble is a run like any other: it is judged and calibrated anew, and can be evaluated, explained, exported (as
one file) and promoted.

Example: stm ensemble hubbard
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from pipelines.addresses import run_of
from pipelines.learning.joining import join, newest, trainings
from pipelines.learning.recording import decision
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("task", help="name of the task")
    parser.add_argument(
        "--runs", nargs="+", metavar="RUN", default=[],
        help="two or more trainings that differ by their seeds, or the one run of several seeds: ids, or runs:/ID "
        "(default: the newest run of stm train --seeds N)",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DATA.zarr", help="where their data set is now, if not where it was")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Join them."""
    store, task = connect(), get(args.task)
    given = [run_of(store, address) for text in args.runs for address in text.split()]
    rows = trainings(store, task, given or [newest(store, task).id])
    fitted, link = join(store, rows, args.data or None)
    decided = decision(task, fitted)
    members = [
        {"run_id": row.id, "seed": int(runs.configuration(store, row.id)["train"]["seed"]),
         "value": row.metrics.get(decided["judged"])}
        for row in rows
    ]  # fmt: skip
    return {**asdict(fitted), **decided, "members": members, "link": link}


def describe(result: dict[str, Any]) -> str:
    """Give the metric that decides, of the ensemble and of each member."""
    name = result["judged"]
    lines = [f"run {result['run_id']}: ensemble of {len(result['members'])} {result['network']}, {name}"]
    rows = {"ensemble": result["metrics"][name], **{f"seed {one['seed']}": one["value"] for one in result["members"]}}
    lines += [f"  {key:<12}" + ("unknown" if value is None else f"{value:.4g}") for key, value in rows.items()]
    if result["better"]:
        lines.append(f"  that of {' and '.join(result['better'])} is as good or better: it cannot be promoted")
    return "\n".join([*lines, f"look at it: {result['link']}"])
