"""From a recorded run to a registered ONNX file and on to champion: what export, promote and demo share."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deploy.exporting.export import ExportReport, export
from deploy.serving.session import Session
from pipelines.asking import predict_all
from pipelines.fitting import Parts, load_parts
from pipelines.settings import SplitConfig
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.tasks.base import Task
from stm_models.training.metrics import metrics
from tracking import models, runs
from tracking.models import ModelVersionInfo
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["best_run", "judged_metric", "model_name", "promote", "publish"]

CHAMPION, CHALLENGER = "champion", "challenger"


def model_name(task: Task) -> str:
    """Name under which a task's models are registered."""
    return f"stm-{task.name}"


def judged_metric(task: Task, row: RunRow) -> str:
    """The metric that decides: on unseen values where the run has them, else on validation states."""
    unseen = f"unseen_{task.metric}"
    return unseen if unseen in row.metrics else task.metric


def best_run(store: Store, task: Task) -> RunRow:
    """Return the finished training with the smallest error among those of the newest data set.

    Raises
    ------
    InputError
        When nothing was trained yet.
    """
    rows = [row for row in runs.find(store, task.name)
            if row.status == "FINISHED" and "network" in row.tags and task.metric in row.metrics]  # fmt: skip
    if not rows:
        raise InputError(
            f"no finished training of {task.name} in {store.location}: run stm train {task.name} --data DATA.zarr"
        )
    digest = max(rows, key=lambda row: row.start).tags.get("data.digest")
    rows = [row for row in rows if row.tags.get("data.digest") == digest]
    return min(rows, key=lambda row: row.metrics[judged_metric(task, row)])


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


def promote(store: Store, task: Task, run_id: str | None = None) -> dict[str, Any]:
    """Make a run's model the champion if its error on the same held-out samples is smaller than the champion's.

    Parameters
    ----------
    run_id : str, optional
        Default: see `best_run`. A run without an exported model is exported first.

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
        result |= _compare(store, task, row, candidate, champion)
    if result["promoted"]:
        models.set_alias(store, name, CHAMPION, candidate.version)
    gate = {"promoted": result["promoted"], "reason": result["reason"], "metric": result["metric"]}
    models.tag_version(store, name, candidate.version, {f"gate.{key}": value for key, value in gate.items()})
    return result


def _compare(
    store: Store, task: Task, row: RunRow, candidate: ModelVersionInfo, champion: ModelVersionInfo
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
    parts = _held_out(store, task, row)
    held = parts.unseen if len(parts.unseen) else parts.validation
    errors = [
        metrics(predict_all(session, held.images)["prediction"], held.targets)[task.metric]
        for session in (ours, theirs)
    ]
    better = errors[0] < errors[1]
    return {
        "promoted": better,
        "value": errors[0],
        "champion": {"version": champion.version, "value": errors[1]},
        "reason": f"{task.metric} {errors[0]:.4g} on {len(held)} held-out samples, "
        f"{'below' if better else 'not below'} the {errors[1]:.4g} of champion version {champion.version}",
    }


def _held_out(store: Store, task: Task, row: RunRow) -> Parts:
    path = row.tags.get("data.path", "")
    if not Path(path).is_dir():
        raise InputError(
            f"the data set of run {row.id} is not at {path or 'any known place'} any more: "
            "simulate it there again, it has the same digest, then promote"
        )
    recorded = yaml.safe_load(runs.download(store, row.id, "config.yaml").read_text(encoding="utf-8"))
    parts = load_parts(path, task, validate(SplitConfig, recorded["split"], "split"))
    if parts.samples.attributes["digest"] != row.tags["data.digest"]:
        raise InputError(
            f"{path} has digest {parts.samples.attributes['digest'][:12]}, run {row.id} was trained on "
            f"{row.tags['data.digest'][:12]}: put the run's data set back, then promote"
        )
    return parts


def _version_of(store: Store, task: Task, row: RunRow) -> ModelVersionInfo:
    name = model_name(task)
    if "model.id" in row.tags:
        for info in models.versions(store, name):
            if info.run_id == row.id:
                return info
    with tempfile.TemporaryDirectory() as folder:
        _, version = publish(store, task, row.id, Path(folder) / "model.onnx")
    return models.version(store, name, version)
