"""Several finished trainings, alike but for their seeds, made into one model: a deep ensemble as a run of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import settings
from pipelines.learning import repeats
from pipelines.learning.recording import Fitted, calibrating, keep, opened
from pipelines.learning.training_data import training_data
from stm_models.errors import InputError
from stm_models.files import sha256_of_json
from stm_models.networks import bundle
from stm_models.networks.ensemble import together
from stm_models.tasks.base import Task
from tracking import runs
from tracking.lineage import MEMBERS
from tracking.runs import RunRow
from tracking.store import Store
from tracking.values import flatten

__all__ = ["join", "newest", "trainings"]

_FREE = ("preset", "train.seed", "train.threads", "train.device")  # what the members' configurations may differ by


def newest(store: Store, task: Task) -> RunRow:
    """Return the newest finished run of several seeds.

    Raises
    ------
    InputError
        When there is none.
    """
    for row in runs.find(store, task.name):
        if row.outcome == "complete" and (repeats.repeated(row) or ("", 0))[0] == "seeds":
            return row
    raise InputError(
        f"no finished run of several seeds of {task.name} in {store.location}: stm train {task.name} --data DATA.zarr "
        "--seeds 3, or name trainings with --runs"
    )


def trainings(store: Store, task: Task, run_ids: Sequence[str]) -> list[RunRow]:
    """Return the runs of the members: those nested in the one of several seeds, or the given ones.

    Raises
    ------
    InputError
        For runs that are no finished trainings of one network on one data set of the task, alike but for the seed.
    """
    rows = [runs.get(store, run_id) for run_id in run_ids]
    for row in rows:
        if row.tags.get("task") != task.name:
            raise InputError(f"run {row.id} ({row.name}) is of task {row.tags.get('task')!r}, expected {task.name!r}")
    several = [row for row in rows if repeats.repeated(row) is not None]
    if several and len(rows) > 1:
        raise InputError(f"run {several[0].id} is the parent of several trainings: give it alone, or its nested runs")
    if several:
        rows = _nested(store, several[0])
    elif len(rows) < 2:
        raise InputError(
            f"run {rows[0].id} is one training: give two or more that differ by their seeds, or the run of "
            "stm train --seeds N"
        )
    if len({row.id for row in rows}) < len(rows):
        raise InputError("a run is given twice: name each member of an ensemble once")
    for row in rows:
        _check(row)
    _alike(store, rows)
    return sorted(rows, key=lambda row: int(row.params.get("train.seed", 0)))


def join(store: Store, rows: Sequence[RunRow], data: str | Path | None = None) -> tuple[Fitted, str]:
    """Record the ensemble of trainings: judged and calibrated as each of them was, with a bundle of its own.

    Parameters
    ----------
    rows : sequence of RunRow
        As `trainings` returns them.
    data : path, optional
        Where their data set is now, if not where it was.

    Returns
    -------
    fitted : Fitted
    link : str
        Of the run.

    Raises
    ------
    InputError
        When the data set or a bundle is gone, or the models do not fit together.
    """
    first = rows[0]
    values = runs.configuration(store, first.id)
    chosen = settings.load(values["task"], values["preset"], recorded=values)
    config, network = chosen.train, chosen.train.network
    parts = training_data(store, first).parts(data)
    members = [bundle.load(runs.download(store, row.id, "bundle")) for row in rows]
    model = together([one.model for one in members])
    model.network.start = members[0].info.get("start", {})
    recipe = sha256_of_json({"ensemble": [row.tags["training.recipe"] for row in rows]})
    tags = {MEMBERS: ",".join(row.id for row in rows)}
    with runs.start(store, chosen.task.name, f"ensemble of {len(rows)} {network}", tags=tags) as record:
        opened(record, chosen, config, parts, recipe, {"ensemble": {"members": len(rows)}})
        if measured := _measured(store, first):
            record.tags({"transductive": True})
            record.json(measured, "measured.json")
        record.tags({key: value for key, value in first.tags.items() if key.startswith("start.")})
        commits = [row.tags.get("git.commit") or "unknown" for row in rows]
        if len(set(commits)) > 1:
            note = f"its members were trained by different code, commits {', '.join(commits)}"
            print(note)
            record.tags({"ensemble.note": note})
        record.metrics({"train_seconds": sum(row.metrics.get("train_seconds", 0.0) for row in rows)})
        held = calibrating(record, chosen, config, parts)
        fitted = keep(record, chosen, config, parts, held, model)
    return fitted, record.link


def _nested(store: Store, parent: RunRow) -> list[RunRow]:
    kind, count = repeats.repeated(parent) or ("", 0)
    if kind != "seeds":
        raise InputError(
            f"the {count} trainings of run {parent.id} are of {kind}, each with other samples left out: an ensemble is "
            "of seeds, stm train --seeds N"
        )
    found = [row for row in runs.find(store, parent.tags["task"], parent=parent.id) if row.outcome == "complete"]
    if parent.outcome != "complete" or len(found) != count:
        raise InputError(
            f"run {parent.id} ({parent.outcome}) finished {len(found)} of its {count} trainings: resume it with "
            f"stm train {parent.tags['task']} --resume {parent.id} --data DATA.zarr, or give finished ones with --runs"
        )
    return found


def _check(row: RunRow) -> None:
    """Refuse what is no single finished training."""
    if MEMBERS in row.tags:
        raise InputError(f"run {row.id} is an ensemble itself: give the runs that it is made of, {row.tags[MEMBERS]}")
    if "training.recipe" not in row.tags or row.outcome != "complete":
        raise InputError(f"run {row.id} ({row.name}, {row.outcome}) is no finished training: give one, or resume it")


def _alike(store: Store, rows: Sequence[RunRow]) -> None:
    """Refuse trainings that differ by more than the seed, and those fitted to what would judge them together."""
    first, *others = rows
    wanted = _about(store, first)
    if wanted["train.refit"]:
        raise InputError(
            f"run {first.id} was fitted again with its validation samples (train.refit), which are to judge the "
            "ensemble: train without it"
        )
    for row in others:
        found = _about(store, row)
        for key in {**wanted, **found}:
            if found.get(key) != wanted.get(key):
                raise InputError(
                    f"run {row.id} has {_short(found.get(key))} for {key}, run {first.id} has "
                    f"{_short(wanted.get(key))}: the members of an ensemble differ by train.seed alone"
                )
    seeds = {runs.configuration(store, row.id)["train"]["seed"] for row in rows}
    if len(seeds) < len(rows):
        raise InputError(
            f"the {len(rows)} runs have {len(seeds)} seeds (train.seed {', '.join(map(str, sorted(seeds)))}): "
            "the same training twice says nothing new, train with other seeds"
        )


def _about(store: Store, row: RunRow) -> dict[str, Any]:
    """Return data, measured maps and configuration of a training, with defaults where it is of a time before a key."""
    values = runs.configuration(store, row.id)
    chosen = settings.load(values["task"], values["preset"], recorded=values)
    whole = {"the data set": row.tags.get("data.digest"), "measured maps": sorted(_measured(store, row).values()),
             **chosen.record("split", "train", "calibrate")}  # fmt: skip
    return {key: value for key, value in flatten(whole) if key not in _FREE}


def _measured(store: Store, row: RunRow) -> dict[str, str]:
    """Return the digests of the maps without labels that a training used, by name."""
    if "transductive" not in row.tags:
        return {}
    found: dict[str, str] = json.loads(runs.download(store, row.id, "measured.json").read_text(encoding="utf-8"))
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
