"""Make the results of a task's paper again, with ours beside them: one MLflow experiment, figures and a report.

Run again it keeps every training that is finished.

Example: stm reproduce impurity --preset quick --out reproduced
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.reproducing.trainings import Work, simulated
from stm_models.config import Config, merge, parse_assignments, validate
from stm_models.errors import InputError, unknown
from stm_models.figures.png import save
from stm_models.files import atomic_path, output_directory, sha256_of_json, write_json
from stm_models.machine import cores
from stm_models.tasks.base import Task
from stm_models.tasks.registry import get, names
from stm_models.tasks.reproduction import Finished, Reproduction
from tracking import runs
from tracking.store import Store, connect

__all__ = ["arguments", "describe", "reproduce", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("task", help="name of the task")
    parser.add_argument("--preset", default="quick", help="how large: quick, paper, test (default: quick)")
    parser.add_argument("--out", required=True, metavar="DIR", help="for data, figures and the report")
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="one value laid over the preset's; repeat, or separate with ';'",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=cores(), help="processes that simulate")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Reproduce."""
    task = get(args.task)
    made = task.reproduction()
    if made is None:
        able = [name for name in names() if get(name).reproduction() is not None]
        raise InputError(f"task {task.name} has nothing to reproduce yet: choose from {', '.join(able) or 'none'}")
    if args.preset not in made.presets:
        raise unknown(f"reproduction of {task.name}", args.preset, made.presets)
    values = merge(made.presets[args.preset], parse_assignments(args.assignments))
    config = validate(made.config, values, "the reproduction")
    return reproduce(connect(), task, made, config, args.out, workers=args.workers)


def reproduce(
    store: Store, task: Task, made: Reproduction, config: Config, out: str | Path, *, workers: int
) -> dict[str, Any]:
    """Simulate, train, judge and conclude; whatever an earlier call with the same ``config`` finished is kept.

    Parameters
    ----------
    store : Store
        Where all runs are recorded.
    task : Task
    made : Reproduction
        The task's.
    config : Config
        Values of ``made.config``, validated.
    out : path
        Folder for data sets, figures and the report.
    workers : int
        Processes that simulate.

    Returns
    -------
    dict
        task, experiment, run_id and link (of the run that all others are nested in), runs (ids by training and seed),
        findings (what the report lists in words), files (paths, the Markdown report last).

    Raises
    ------
    InputError
        For an impossible ``config``, or a folder that cannot be written.
    """
    out = output_directory(out).absolute()
    trainings = made.trainings(config)
    sets = simulated(task, made.data_sets(config), out / "data", workers)
    experiment = f"reproduce {task.name}"
    key = sha256_of_json({"task": task.name, "config": config.model_dump(mode="json")})
    parent_id = next(
        (row.id for row in runs.find(store, experiment) if row.parent is None and row.tags.get("reproduction") == key),
        None,
    )
    tags = {"task": task.name, "reproduction": key}
    with runs.start(store, experiment, f"reproduce {task.name}", tags=tags, resume=parent_id) as parent:
        parent.config({"task": task.name, "reproduce": config.model_dump(mode="json")})
        parent.environment()
        work = Work(store, experiment, parent.id, task, made, config, sets)
        finished = []
        for number, training in enumerate(trainings, 1):
            print(
                f"== {number} of {len(trainings)}: {training.name}, seed {training.seed}", file=sys.stderr, flush=True
            )
            finished.append(work.finished(training))
        baselines = work.baselines()
        scored = sorted({name for one in trainings for name in (*one.watched, *one.judged)})
        concluded = made.conclude(config, finished, baselines, work.samples(scored))
        report = {"task": task.name, "experiment": experiment, "run_id": parent.id, **concluded.report}
        files = [save(figure, out / f"{name}.png") for name, figure in concluded.figures.items()]
        write_json(out / "report.json", report)
        with atomic_path(out / "report.md") as part:
            part.write_text(
                f"{concluded.text}\nMLflow: experiment `{experiment}`, run {parent.id}.\n", encoding="utf-8"
            )
        files += [*_explained(store, finished, out), out / "report.json", out / "report.md"]
        for file in files:
            parent.artifact(file, "figures" if file.suffix == ".png" else None)
    return {
        "task": task.name, "experiment": experiment, "run_id": parent.id, "link": parent.link,
        "runs": {f"{one.training.name}, seed {one.training.seed}": one.run_id for one in finished},
        "findings": list(report.get("findings", [])), "files": [str(file) for file in files],
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Say what was found, and where it is."""
    lines = [f"{len(result['runs'])} trainings in the experiment {result['experiment']!r}, run {result['run_id']}"]
    lines += [f"  {text}" for text in result["findings"]]
    return "\n".join([*lines, f"report: {result['files'][-1]}", f"look at it: {result['link']}"])


def _explained(store: Store, finished: Sequence[Finished], out: Path) -> list[Path]:
    """Copy the figures of where trained networks look beside the report."""
    copies = []
    for one in finished:
        for method in one.attention:
            for kind in ("attention", "maps"):
                copies.append(out / f"{kind}_{one.training.figure(method)}.png")
                with atomic_path(copies[-1]) as part:
                    shutil.copyfile(runs.download(store, one.run_id, f"figures/{kind}_{method}.png"), part)
    return copies
