"""Make a run's model the champion, if it passes every gate; or go back to the champion before.

The gates: better than the champion on the same held-out states by a paired test, better than the baselines, good on
every perturbation set, intervals that hold the truth as often as they say, a file that agrees with its torch model,
answers that are finite and differ, and quick ones. Every verdict is written to the version.

Example: stm promote hubbard
"""

from __future__ import annotations

import argparse
from typing import Any

from pipelines import settings
from pipelines.addresses import registered, run_of
from pipelines.promoting import promotion
from pipelines.promoting.publishing import best_run, candidates
from stm_models.errors import InputError
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("task", help="name of the task")
    parser.add_argument(
        "--run",
        metavar="RUN",
        help="its id or runs:/ID, or models:/NAME/VERSION or @ALIAS for this very version (default: the best run on "
        "the newest data set)",
    )
    parser.add_argument("--on", metavar="FRESH.zarr", help="judge on states simulated for the purpose")
    parser.add_argument("--data", metavar="DATA.zarr", help="where the run's data set is now, if not where it was")
    parser.add_argument("--force", metavar="WHY", help="promote in spite of failed gates; the version keeps the reason")
    parser.add_argument("--rollback", action="store_true", help="make the champion of before the champion again")
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="promote.KEY=VALUE",
        help="what the gates allow, e.g. promote.alpha=0.01",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Promote or say why not."""
    store, task = connect(), get(args.task)
    if args.rollback:
        for option in ("run", "on", "data", "force"):
            if getattr(args, option):
                raise InputError(f"--{option} with --rollback: leave it out")
        if any(pair.strip() for pair in args.assignments):
            raise InputError("--set with --rollback, which asks no gate: leave it out")
        return promotion.rollback(store, task)
    version = registered(store, args.run) if args.run else None
    rows = [] if args.run else candidates(store, task)
    run_id = run_of(store, args.run) if args.run else best_run(store, task, [row.id for row in rows]).id
    preset = runs.get(store, run_id).params.get("preset")
    known = preset if preset in settings.presets(task.name) else None
    settings.only_section("promote", args.assignments)
    chosen = settings.load(task.name, *([known] if known else []), assignments=args.assignments)
    return promotion.promote(
        store, task, run_id, args.data or None, config=chosen.promote, on=args.on or None, force=args.force or None,
        version=version, among=max(1, len(rows)),
    )  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Give the verdict, gate by gate."""
    verdict = "is the champion now" if result["promoted"] else "was not promoted"
    lines = [f"{result['model']} version {result['version']} {verdict}: {result['reason']}"]
    return "\n".join(
        lines + [f"  {gate['name']:<12}{gate['verdict']:<12}{gate['reason']}" for gate in result.get("gates", [])]
    )
