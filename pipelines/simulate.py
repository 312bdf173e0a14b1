"""Make a data set from physics, group by group; run again, it continues where it stopped.

Example: stm simulate hubbard --preset quick --out quick.zarr
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from pipelines import settings
from pipelines.simulation import simulate
from stm_models.machine import cores

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings.arguments(parser)
    parser.add_argument("--out", required=True, metavar="DATA.zarr")
    parser.add_argument("--executor", default="local", help="where groups are simulated (local)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes (default: one per core)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Simulate."""
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=args.assignments, seed=args.seed)
    summary = simulate(chosen.task, chosen.simulate, args.out, workers=args.workers, executor=args.executor)
    return asdict(summary)


def describe(result: dict[str, Any]) -> str:
    """Say what was made."""
    flagged = f", {result['flagged']} groups did not converge and are left out" if result["flagged"] else ""
    return (
        f"{result['data']}: {result['samples']} samples in {result['groups']} groups{flagged}\n"
        f"digest {result['digest'][:16]}  recipe {result['recipe'][:16]}  {result['seconds']:.1f} s"
    )
