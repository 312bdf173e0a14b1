"""Make a data set from physics, group by group; run again, it continues where it stopped.

Example: stm simulate hubbard --preset quick --out quick.zarr
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from pipelines import executors, settings
from pipelines.simulating.simulation import simulate
from stm_models.errors import InputError
from stm_models.machine import cores

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings.arguments(parser)
    parser.add_argument("--out", required=True, metavar="DATA.zarr")
    parser.add_argument(
        "--executor", default="local", metavar="WHERE",
        help=f"where groups are simulated: {', '.join(executors.CHOICES)} (default: local; see docs/cluster.md)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="processes of the local executor (default: one per core)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="for the linear algebra")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Simulate."""
    if args.workers is not None and args.executor != "local":
        raise InputError(
            f"--workers {args.workers} is for the local executor: a Dask cluster has the workers it has, "
            "and slurm:jobs=N,parallel=M says how many jobs"
        )
    workers = cores() if args.workers is None else args.workers
    settings.only_sections("simulate", args.assignments, "simulate")
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=args.assignments, seed=args.seed)
    summary = simulate(
        chosen.task, chosen.simulate, args.out, workers=workers, executor=args.executor, device=args.device
    )
    return asdict(summary)


def describe(result: dict[str, Any]) -> str:
    """Say what was made."""
    flagged = f", {result['flagged']} groups did not converge and are left out" if result["flagged"] else ""
    return (
        f"{result['data']}: {result['samples']} samples in {result['groups']} groups{flagged}\n"
        f"digest {result['digest'][:16]}  recipe {result['recipe'][:16]}  {result['seconds']:.1f} s"
    )
