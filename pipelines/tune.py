"""Search training parameters with Optuna: each trial a nested MLflow run, poor ones pruned, resumable.

Run again with the same --study it continues until TRIALS are done: of a worker or command that was killed, the
trainings go on from their checkpoints. Choices use values held out whole (of U, for hubbard). See docs/tuning.md.

Example: stm tune hubbard --data quick.zarr --trials 8 --workers 2
"""

from __future__ import annotations

import argparse
from typing import Any

from pipelines import executors, settings
from pipelines.learning import repeats
from pipelines.learning.fitting import load_parts
from pipelines.tuning import report
from pipelines.tuning.search import Crew, Search
from stm_models.errors import InputError
from tracking.store import recording

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings.arguments(parser)
    parser.add_argument("--data", required=True, metavar="DATA.zarr")
    parser.add_argument(
        "--model", metavar="NAME[,NAME...]", help="network, or networks to choose from (default: the task's)"
    )
    parser.add_argument("--trials", type=settings.optional_int, help="trials in all (default: the preset's)")
    parser.add_argument("--study", metavar="NAME", help="name to continue under (default: made from the configuration)")
    parser.add_argument(
        "--storage", metavar="URL",
        help="Optuna storage: sqlite:///FILE.db, postgresql://USER@HOST/NAME or grpc://HOST:PORT "
        "(default: optuna.db beside the tracking store)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=1, metavar="K", help="processes that work on trials (default: 1)"
    )
    parser.add_argument(
        "--executor", default="local", metavar="WHERE",
        help=f"where they are: {', '.join(executors.CHOICES)} (default: local)",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="earlier", metavar="STUDY", help="try the best trials of this study of the same storage first"
    )
    parser.add_argument(
        "--seeds", type=settings.optional_int, metavar="N", help="train the best trial with N seeds in full at the end"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Tune."""
    if args.workers < 1:
        raise InputError(f"--workers is {args.workers}: expected at least 1")
    if args.seeds is not None:
        repeats.check("seeds", args.seeds)
    executors.check(args.executor)
    settings.only_sections("tune", args.assignments, "split", "train", "tune", "calibrate")
    networks = [name for name in (args.model or "").split(",") if name]
    pairs = list(args.assignments)
    if networks:
        # The preset's options are those of its own network, wherever that stands among them.
        own = settings.load(args.task, args.preset, config=args.config, assignments=pairs).train.network
        listed = ", ".join(f'"{name}"' for name in networks if len(networks) > 1)
        pairs += [f"train.network={own if own in networks else networks[0]}", f"tune.networks=[{listed}]"]
    pairs += [f"tune.trials={args.trials}"] if args.trials is not None else []
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=pairs, seed=args.seed)
    store = recording()
    parts = load_parts(args.data, chosen.task, chosen.split, chosen.train.targets)
    alone = args.workers == 1 and args.executor == "local"
    search = Search(store, chosen, parts, args.study, args.storage, earlier=args.earlier)
    return search.run(seeds=args.seeds, crew=None if alone else Crew(args.workers, args.executor))


def describe(result: dict[str, Any]) -> str:
    """Say what the search found."""
    return report.describe(result)
