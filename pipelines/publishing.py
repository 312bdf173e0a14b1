"""From a recorded run to a registered ONNX file and on to champion: what export, promote and demo share."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from deploy.exporting.export import ExportReport, export
from deploy.serving.session import Session
from pipelines.asking import predict_all
from pipelines.fitting import Parts, load_parts
from pipelines.settings import SplitConfig
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.tasks.base import Task
from stm_models.training.config import TrainConfig
from tracking import models, runs
from tracking.models import ModelVersionInfo
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["best_run", "judged_metric", "model_name", "promote", "publish", "published"]

CHAMPION, CHALLENGER = "champion", "challenger"


def model_name(task: Task) -> str:
    """Name under which a task's models are registered."""
    return f"stm-{task.name}"


def judged_metric(task: Task, row: RunRow) -> str:
    """The metric that decides: on unseen values where the run has them, else on validation states."""
    unseen = f"unseen_{task.metric}"
    return unseen if unseen in row.metrics else task.metric


def best_run(store: Store, task: Task, among: Sequence[str] = ()) -> RunRow:
    """Return the training with the best score on held-out samples.

    Parameters
    ----------
    among : sequence of str
        Ids of runs to choose from; by default all finished ones with the data set and the split of the newest, those
        of folds left out: they measure a configuration.

    Raises
    ------
    InputError
        When nothing was trained yet.
    """
    if among:
        rows = [runs.get(store, run_id) for run_id in among]
    else:
        rows = [
            row
            for row in runs.find(store, task.name)
            if row.status == "FINISHED"
            and "training.recipe" in row.tags
            and task.metric in row.metrics
            and row.params.get("split.folds", "0") == "0"
        ]
        if not rows:
            raise InputError(
                f"no finished training of {task.name} in {store.location}: run stm train {task.name} --data DATA.zarr"
            )
        newest = max(rows, key=lambda row: row.start)
        rows = [row for row in rows if _held_out_by(row) == _held_out_by(newest)]
    choose = max if task.larger_is_better else min
    return choose(rows, key=lambda row: row.metrics[judged_metric(task, row)])


def publish(store: Store, task: Task, run_id: str, out: Path) -> tuple[ExportReport, int]:
    """Export a run's model to ``out``, log the file with the run, and register it as the challenger.

    Returns
    -------
    report : ExportReport
    version : int

    Raises
    ------
    InputError
        For a run without a model bundle, or a file that cannot be written.
    ExportError
        When the file does not agree with the model.
    """
    row = runs.get(store, run_id)
    folder = runs.download(store, run_id, "bundle")
    info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if info["task"] != task.name:
        raise InputError(f"run {run_id} has a model of task {info['task']!r}, expected {task.name!r}")
    metadata = {
        **{key: info[key] for key in ("task", "input", "targets", "explained", "data", "metrics", "distance")},
        "calibration": info.get("calibration", {}),
        "run_id": run_id,
        "git_commit": row.tags.get("git.commit"),
    }
    report = export(folder, out, metadata)
    record = runs.existing(store, run_id)
    record.metrics({f"parity.{key}": value for key, value in report.parity.items()})
    record.flush()
    example = np.zeros((1, *(info["input"][key] for key in ("channels", "height", "width"))), np.float32)
    models.log_onnx(record, report.path, report.sha256, metadata, example)
    version = models.register(store, model_name(task), run_id)
    models.set_alias(store, model_name(task), CHALLENGER, version)
    return report, version


def promote(store: Store, task: Task, run_id: str | None = None, data: str | Path | None = None) -> dict[str, Any]:
    """Make a run's model the champion if its score is better on samples that neither was trained on.

    Parameters
    ----------
    run_id : str, optional
        Default: see `best_run`. A run without an exported model is exported first.
    data : path, optional
        Where the run's data set is now, if not where it was.

    Returns
    -------
    dict
        model, version, run_id, promoted, reason, metric, value, champion (version and value before).
    """
    name = model_name(task)
    row = runs.get(store, run_id) if run_id else best_run(store, task)
    candidate = _version_of(store, task, row)
    champion = models.champion(store, name)
    result: dict[str, Any] = {
        "model": name, "version": candidate.version, "run_id": row.id, "metric": judged_metric(task, row),
        "champion": None if champion is None else {"version": champion.version},
    }  # fmt: skip
    if champion is None:
        result |= {"promoted": True, "reason": "there was no champion"}
    elif champion.version == candidate.version:
        result |= {"promoted": False, "reason": "it is the champion already"}
    else:
        result |= _compare(store, task, row, candidate, champion, data)
    if result["promoted"]:
        models.set_alias(store, name, CHAMPION, candidate.version)
    gate = {"promoted": result["promoted"], "reason": result["reason"], "metric": result["metric"]}
    models.tag_version(store, name, candidate.version, {f"gate.{key}": value for key, value in gate.items()})
    return result


def _compare(
    store: Store,
    task: Task,
    row: RunRow,
    candidate: ModelVersionInfo,
    champion: ModelVersionInfo,
    data: str | Path | None,
) -> dict[str, Any]:
    name = model_name(task)
    ours = Session(models.resolve(store, f"models:/{name}/{candidate.version}"))
    theirs = Session(models.resolve(store, f"models:/{name}/{champion.version}"))
    if ours.metadata.input != theirs.metadata.input:
        return {
            "promoted": False,
            "reason": f"champion version {champion.version} takes other images, so the two cannot be compared; "
            f"serve models:/{name}/{candidate.version} by its number",
        }
    if ours.metadata.targets != theirs.metadata.targets:
        return {
            "promoted": False,
            "reason": f"champion version {champion.version} predicts {_names(theirs)}, this one {_names(ours)}, so the "
            f"two cannot be compared; serve models:/{name}/{candidate.version} by its number",
        }
    parts, known = _parts(store, task, row, data or row.tags.get("data.path", ""))
    held = parts.unseen if len(parts.unseen) else parts.validation
    held = held.subset(~np.isin(held.coordinates["sample"], known))
    if not len(held):
        return {
            "promoted": False,
            "reason": f"run {row.id} was fitted to all samples but none of unseen values are held out: "
            "train without train.refit, or hold out values with --set split.unseen_fraction=0.16",
        }
    if champion.digest == candidate.digest:
        # The champion's split may differ: what it was trained on says nothing about it.
        _, known = _parts(store, task, runs.get(store, champion.run_id), parts.samples.path)
        held = held.subset(~np.isin(held.coordinates["sample"], known))
    if not len(held):
        return {
            "promoted": False,
            "reason": f"champion version {champion.version} was trained on every sample that this run held out: "
            "train with the champion's split (--set split.seed=...) to compare them",
        }
    first, second = (
        task.metrics(predict_all(session, held.images)["prediction"], held, session.metadata.calibration)[task.metric]
        for session in (ours, theirs)
    )
    better, where = (first > second, "above") if task.larger_is_better else (first < second, "below")
    return {
        "promoted": better,
        "value": first,
        "champion": {"version": champion.version, "value": second},
        "reason": f"{task.metric} {first:.4g} on {len(held)} held-out samples, "
        f"{where if better else f'not {where}'} the {second:.4g} of champion version {champion.version}",
    }


def _names(session: Session) -> str:
    return " and ".join(target.name for target in session.metadata.targets)


def _held_out_by(row: RunRow) -> tuple[str | None, ...]:
    split = sorted(f"{key}={value}" for key, value in row.params.items() if key.startswith(("split.", "train.targets")))
    return (row.tags.get("data.digest"), *split)


def _parts(store: Store, task: Task, row: RunRow, path: str | Path) -> tuple[Parts, NDArray[np.int64]]:
    """Read the data set of a run, split as the run split it; and the numbers of the samples its model knows."""
    if not Path(path).is_dir():
        raise InputError(
            f"the data set of run {row.id} is not at {path or 'any known place'} any more: "
            "simulate it there again, it has the same digest, then promote"
        )
    recorded = yaml.safe_load(runs.download(store, row.id, "config.yaml").read_text(encoding="utf-8"))
    train = validate(TrainConfig, recorded["train"], "train")
    parts = load_parts(path, task, validate(SplitConfig, recorded["split"], "split"), train.targets)
    if parts.samples.attributes["digest"] != row.tags["data.digest"]:
        raise InputError(
            f"{path} has digest {parts.samples.attributes['digest'][:12]}, run {row.id} was trained on "
            f"{row.tags['data.digest'][:12]}: put the run's data set back, then promote"
        )
    return parts, parts.fitted(train.refit).coordinates["sample"]


def published(store: Store, task: Task, row: RunRow, out: Path) -> int:
    """Put the ONNX file of a run's version at ``out``, published first where there is none; return the version."""
    name = model_name(task)
    made = [info for info in models.versions(store, name) if info.run_id == row.id] if "model.id" in row.tags else []
    if not made:
        return publish(store, task, row.id, out)[1]
    # A run exported more than once: the champion among its versions, else the newest.
    info = max(made, key=lambda info: (CHAMPION in info.aliases, info.version))
    with atomic_path(out) as part:
        shutil.copyfile(models.resolve(store, f"models:/{name}/{info.version}"), part)
    return info.version


def _version_of(store: Store, task: Task, row: RunRow) -> ModelVersionInfo:
    with tempfile.TemporaryDirectory() as folder:
        number = published(store, task, row, Path(folder) / "model.onnx")
    return models.version(store, model_name(task), number)
