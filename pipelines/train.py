"""Train one network on a data set; the run is recorded in MLflow with its baselines beside it.

Several processes train one network together when torchrun starts them:
torchrun --nproc-per-node 2 -m pipelines train hubbard --data quick.zarr

Example: stm train hubbard --data quick.zarr --model mlp
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines import settings
from pipelines.addresses import run_of
from pipelines.learning import repeats
from pipelines.learning.fitting import Measured, Parts, fit, informed, load_parts, recipe
from pipelines.learning.network import CHECKPOINTS, begun_as, checkpoint_of, forget, learn
from pipelines.learning.recording import decision
from pipelines.learning.training_data import training_data
from stm_models.data import readers
from stm_models.errors import InputError
from stm_models.files import sha256
from stm_models.networks import registry
from stm_models.tasks.base import Task
from stm_models.training import distributed
from tracking import runs
from tracking.runs import RunRow
from tracking.store import Store, connect, recording

__all__ = ["arguments", "describe", "read_measured", "recorded", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings.arguments(parser)
    parser.add_argument("--data", required=True, metavar="DATA.zarr")
    parser.add_argument("--model", metavar="NAME", help="network (default: the task's)")
    parser.add_argument("--include-unconverged", action="store_true", help="use flagged states too")
    parser.add_argument(
        "--experiment", nargs="+", metavar="FILE", default=[],
        help="measured maps without labels, for the term of the loss that train.confidence_weight weighs",
    )  # fmt: skip
    many = parser.add_mutually_exclusive_group()
    many.add_argument(
        "--seeds", type=settings.optional_int, metavar="N", help="train with N seeds; mean and spread in a parent run"
    )
    many.add_argument(
        "--folds", type=settings.optional_int, metavar="K",
        help="validate on each of K folds of the simulated states in turn",
    )  # fmt: skip
    parser.add_argument("--resume", metavar="RUN_ID", help="continue an interrupted run with the configuration it has")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train."""
    settings.only_sections("train", args.assignments, "split", "train", "calibrate")
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=_assignments(args), seed=args.seed)
    again = _kind(args)
    resume = args.resume
    if resume:
        chosen, again, resume = _resumed(store := connect(), run_of(store, resume), args.task, args.preset)
    registry.check(chosen.train.network, chosen.train.options)
    with distributed.joined(chosen.train.device) as world:
        parts = load_parts(args.data, chosen.task, chosen.split, chosen.train.targets)
        measured = read_measured(chosen.task, args.experiment, parts.samples.attributes["input"])
        if world.size > 1 and again:
            raise InputError(f"--{again[0]} in processes of torchrun: let these train one run, or start stm alone")
        if world.rank == 0:
            result = recorded(recording(), chosen, parts, measured, again, resume)
        else:
            learn(chosen.task, informed(chosen.task, chosen.train, parts), parts, measured=measured)
    if world.rank:
        sys.exit(0)  # rank 0 answers
    return result


def recorded(
    store: Store,
    chosen: settings.Settings,
    parts: Parts,
    measured: Measured,
    again: tuple[str, int] | None = None,
    resume: str | None = None,
    tags: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train once, or several times, recorded.

    Parameters
    ----------
    store : Store
    chosen : Settings
    parts : Parts
    measured : Measured
    again : (str, int), optional
        Kind and number of repetitions, see `pipelines.repeats.repeat`.
    resume : str, optional
        An interrupted run to continue.
    tags : mapping, optional
        Further tags of the run.

    Returns
    -------
    dict
        Of `pipelines.fitting.Fitted` with the metric that decides (``judged``), the baselines that are not beaten by it
        (``better``) and the run's ``link``; or what `pipelines.repeats.repeat` returns. And ``note``, see `Parts`.
    """
    if resume and runs.bury(store, chosen.task.name):  # or what the killed process left is sent beside us
        runs.refuse_living(store, resume)
    if again:
        return {**repeats.repeat(store, chosen, parts, *again, measured=measured, resume=resume), "note": parts.note}
    before = runs.get(store, resume) if resume else None
    if before is not None:
        _same_data(store, before, recipe(chosen, chosen.train, parts, measured), parts, measured)
    with runs.start(store, chosen.task.name, f"train {chosen.train.network}", resume=resume, tags=tags) as record:
        print(f"run {record.id}: if interrupted, continue with --resume {record.id}")
        fitted = fit(record, chosen, chosen.train, parts, checkpoint=checkpoint_of(record.id), measured=measured)
        if before is not None and repeats.nested(before):
            repeats.keep(record, fitted)
        forget(checkpoint_of(record.id))
    return {**asdict(fitted), **decision(chosen.task, fitted), "note": parts.note, "link": record.link}


def read_measured(task: Task, files: Sequence[str], input_spec: Mapping[str, Any]) -> Measured:
    """Prepare measured maps as a model of ``input_spec`` would be asked about them.

    Raises
    ------
    InputError
        When the task's training has no use for maps without labels, or a file cannot be read or prepared.
    """
    if files and not task.unlabelled:
        raise InputError(
            f"--experiment is {files[0]}, but the loss of task {task.name} has no term for maps without labels: "
            "leave it out"
        )
    images = []
    for file in files:
        raw = readers.read(Path(file))
        prepared = task.prepare(raw, input_spec)
        print("\n".join(f"{file}: {note}" for note in (*raw.notes, *prepared.notes)))
        images.append(prepared.image)
    return Measured(tuple(images), {str(file): sha256(Path(file)) for file in files})


def describe(result: dict[str, Any]) -> str:
    """List the scores of the network and of the baselines, or of repetitions mean and spread."""
    end = [*([f"note: {result['note']}"] if result["note"] else []), f"look at it: {result['link']}"]
    if "runs" in result:
        return "\n".join([repeats.describe(result), *end])
    rows = {result["network"]: result["metrics"], **result["baselines"]}
    lines, width = [f"run {result['run_id']}"], max(map(len, rows)) + 2
    for name, found in rows.items():
        # Those of single perturbation sets are in the run.
        shown = {key: value for key, value in found.items() if "." not in key}
        lines.append(f"  {name:<{width}}" + "  ".join(f"{key} {value:.4g}" for key, value in shown.items()))
    if result["better"]:
        lines.append(
            f"  {result['judged']} of {' and '.join(result['better'])} is as good or better: "
            "such a model cannot be promoted"
        )
    return "\n".join([*lines, *end])


def _kind(args: argparse.Namespace) -> tuple[str, int] | None:
    given = [(kind, getattr(args, kind)) for kind in repeats.KINDS if getattr(args, kind) is not None]
    return given[0] if given else None


def _assignments(args: argparse.Namespace) -> list[str]:
    changes = (args.assignments, args.model, args.config, args.include_unconverged, _kind(args))
    if args.resume and (any(changes) or args.seed is not None):
        raise InputError(
            "--resume keeps the configuration that the run has: leave --set, --config, --model, --seed, --seeds and "
            "--folds out"
        )
    pairs = list(args.assignments)
    pairs += [f"train.network={args.model}"] if args.model else []
    pairs += ["split.include_unconverged=true"] if args.include_unconverged else []
    return pairs


def _same_data(store: Store, row: RunRow, wanted: str, parts: Parts, measured: Measured) -> None:
    """Refuse to go on with other data, before the record of the run is touched."""
    training_data(store, row).check(parts.samples)
    if (measured.images or "transductive" in row.tags) and row.tags.get("training.recipe") != wanted:
        raise InputError(f"run {row.id} was started with other measured maps: give the same --experiment files")


def _resumed(
    store: Store, run_id: str, task: str, preset: str
) -> tuple[settings.Settings, tuple[str, int] | None, str]:
    """Return configuration and kind of a run of the past, and the id that it was started with."""
    row = runs.get(store, run_id)
    again = repeats.repeated(row)
    begun = begun_as(row)
    if again is None and begun is None:
        raise InputError(
            f"run {run_id} ({row.outcome}) has no checkpoint in {CHECKPOINTS.absolute()}: "
            "resume in the folder where it was started, or train anew without --resume"
        )
    values = runs.configuration(store, run_id)
    if task != values["task"]:
        raise InputError(f"run {run_id} is of task {values['task']!r}, got {task!r}: stm train {values['task']} ...")
    if preset not in (settings.PRESET, values["preset"]):
        raise InputError(f"--preset is {preset!r}, but run {run_id} has preset {values['preset']!r}: leave it out")
    return settings.load(values["task"], values["preset"], recorded=values), again, begun or run_id
