"""From a recorded run to a registered ONNX file: what export, promote and demo share."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import ExportReport, export
from pipelines.scoring.robustness import judged_metric
from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.networks.bundle_files import INFO
from stm_models.tasks.base import Task
from tracking import models, runs
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["CHAMPION", "best_run", "candidates", "model_name", "of_fold", "publish", "published"]

CHAMPION, CHALLENGER = "champion", "challenger"


def model_name(task: Task) -> str:
    """Name under which a task's models are registered."""
    return f"stm-{task.name}"


def candidates(store: Store, task: Task) -> list[RunRow]:
    """Return all finished trainings with the data set and the split of the newest.

    Those of folds are left out, as they measure a configuration, and those whose error is no number.

    Raises
    ------
    InputError
        When nothing was trained yet.
    """
    rows = [
        row
        for row in runs.find(store, task.name)
        if row.status == "FINISHED"
        and "training.recipe" in row.tags
        and math.isfinite(row.metrics.get(task.metric, math.nan))
        and not of_fold(row)
    ]
    if not rows:
        raise InputError(
            f"no finished training of {task.name} in {store.location}: run stm train {task.name} --data DATA.zarr"
        )
    newest = max(rows, key=lambda row: row.start)
    return [row for row in rows if _held_out_by(row) == _held_out_by(newest)]


def best_run(store: Store, task: Task, among: Sequence[str] = ()) -> RunRow:
    """Return the training with the best score on held-out samples.

    Parameters
    ----------
    among : sequence of str
        Ids of runs to choose from; by default the `candidates`.

    Raises
    ------
    InputError
        When nothing was trained yet.
    """
    rows = [runs.get(store, run_id) for run_id in among] if among else candidates(store, task)
    choose = max if task.larger_is_better else min
    # What all of them were judged by.
    name = judged_metric(task, set.intersection(*(set(row.metrics) for row in rows)))
    known = [row for row in rows if math.isfinite(row.metrics[name])]
    return choose(known or rows, key=lambda row: row.metrics[name])


def of_fold(row: RunRow) -> bool:
    """Tell whether a training left out one of several folds: it measures a configuration."""
    return row.params.get("split.folds", "0") != "0"


def publish(
    store: Store, task: Task, run_id: str, out: Path, config: ExportConfig | None = None
) -> tuple[ExportReport, int]:
    """Export a run's model to ``out``, log the file with the run, and register it as the challenger.

    Parameters
    ----------
    store : Store
        Holds the run, and the registry.
    task : Task
        The run's; it names the registered model.
    run_id : str
    out : Path
        Ends in ``.onnx``.
    config : ExportConfig, optional
        Which maps, and in what precision; by default the section ``export`` as it stands.

    Returns
    -------
    report : ExportReport
    version : int
        Of the registered model.

    Raises
    ------
    InputError
        For a run that is not there, has no model bundle or is of another task, or a file that cannot be written.
    ExportError
        When the file does not agree with the model.
    """
    row = runs.get(store, run_id)
    run_id = row.id
    folder = runs.download(store, run_id, "bundle")
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    if info["task"] != task.name:
        raise InputError(f"run {run_id} has a model of task {info['task']!r}, expected {task.name!r}")
    metadata = {
        **{key: info[key] for key in ("task", "input", "targets", "explained", "data", "metrics", "distance")},
        **{key: info.get(key) for key in ("interval", "novelty")},
        "calibration": info.get("calibration", {}),
        "run_id": run_id,
        "git_commit": row.tags.get("git.commit"),
    }
    report = export(folder, out, metadata, config)
    record = runs.existing(store, run_id)
    record.metrics({f"parity.{key}": value for key, value in report.parity.items()})
    example = np.zeros((1, *(info["input"][key] for key in ("channels", "height", "width"))), np.float32)
    models.log_onnx(record, report.path, report.sha256, metadata, example)
    version = models.register(store, model_name(task), run_id)
    models.set_alias(store, model_name(task), CHALLENGER, version)
    return report, version


def _held_out_by(row: RunRow) -> tuple[str | None, ...]:
    split = sorted(f"{key}={value}" for key, value in row.params.items() if key.startswith(("split.", "train.targets")))
    return (row.tags.get("data.digest"), *split)


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
