"""Which model is the champion: better than the one before and than simple methods, on samples that neither knows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.asking import predict_all
from deploy.serving.session import Session
from pipelines.fitting import Parts, baseline_scores, load_parts
from pipelines.publishing import CHAMPION, best_run, model_name, published
from pipelines.robustness import better_baselines, judged_metric, judged_sets, robust_scores
from pipelines.settings import SplitConfig
from stm_models.config import validate
from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.tasks.base import Task
from stm_models.training.config import TrainConfig
from tracking import models, runs
from tracking.models import ModelVersionInfo
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["promote"]


def promote(store: Store, task: Task, run_id: str | None = None, data: str | Path | None = None) -> dict[str, Any]:
    """Make a run's model the champion if it beats the baselines, and the champion on samples that neither knows.

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
        "model": name, "version": candidate.version, "run_id": row.id, "metric": judged_metric(task, row.metrics),
        "champion": None if champion is None else {"version": champion.version},
    }  # fmt: skip
    if champion is None:
        result |= {"promoted": True, "reason": "there was no champion"}
    elif champion.version == candidate.version:
        result |= _refused("it is the champion already")
    else:
        result |= _compare(store, task, row, candidate, champion, data)
    if result["promoted"]:
        result |= _beside_baselines(store, task, row, result["metric"], data)
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
    number = f"models:/{name}/{candidate.version}"
    if ours.metadata.input != theirs.metadata.input:
        return _refused(
            f"champion version {champion.version} takes other images, so the two cannot be compared; "
            f"serve {number} by its number"
        )
    if ours.metadata.targets != theirs.metadata.targets:
        return _refused(
            f"champion version {champion.version} predicts {_names(theirs)}, this one {_names(ours)}, so the "
            f"two cannot be compared; serve {number} by its number"
        )
    parts, known = _parts(store, task, row, data or row.tags.get("data.path", ""))
    held = parts.unseen if len(parts.unseen) else parts.validation
    held = held.subset(~np.isin(held.coordinates["sample"], known))
    if not len(held):
        return _refused(
            f"run {row.id} was fitted to all samples but none of unseen values are held out: "
            "train without train.refit, or hold out values with --set split.unseen_fraction=0.16"
        )
    if champion.digest == candidate.digest:
        # The champion's split may differ: what it was trained on says nothing about it.
        _, known = _parts(store, task, runs.get(store, champion.run_id), parts.samples.path)
        held = held.subset(~np.isin(held.coordinates["sample"], known))
    if not len(held):
        return _refused(
            f"champion version {champion.version} was trained on every sample that this run held out: "
            "train with the champion's split (--set split.seed=...) to compare them"
        )
    # By what the champion was judged: easier sets of the candidate's own choice count for nothing.
    sets = judged_sets(task, held, _split(runs.configuration(store, champion.run_id)).judged)
    (metric, first), (_, second) = (_judged(task, session, sets) for session in (ours, theirs))
    better, where = (first > second, "above") if task.larger_is_better else (first < second, "below")
    return {
        "promoted": better,
        "value": first,
        "champion": {"version": champion.version, "value": second},
        "reason": f"{metric} {first:.4g} on {len(held)} held-out samples, "
        f"{where if better else f'not {where}'} the {second:.4g} of champion version {champion.version}",
    }


def _judged(task: Task, session: Session, sets: Mapping[str, Samples]) -> tuple[str, float]:
    """Name and value of what decides, on all sets of samples."""

    def predictor(samples: Samples) -> NDArray[Any]:
        return predict_all(session, samples.images)["prediction"]

    calibration = session.metadata.calibration
    found = robust_scores(task, predictor, sets, calibration)
    if not found:
        (only,) = sets.values()
        found = task.metrics(predictor(only), only, calibration)
    name = judged_metric(task, found)
    return name, found[name]


def _beside_baselines(store: Store, task: Task, row: RunRow, name: str, data: str | Path | None) -> dict[str, Any]:
    """Refuse a model that does not beat the baselines by the metric ``name``; they are fitted where a trial was not."""
    metrics = dict(row.metrics)
    if not any(key.endswith(f".{name}") for key in metrics):
        parts, _ = _parts(store, task, row, data or row.tags.get("data.path", ""))
        scores = baseline_scores(task, parts, int(row.params["train.seed"]))
        found = {f"{baseline}.{key}": value for baseline, own in scores.items() for key, value in own.items()}
        record = runs.existing(store, row.id)
        record.metrics(found)
        record.flush()
        metrics |= found
    better = better_baselines(task, name, metrics)
    if not better:
        return {}
    beaten = " and ".join(f"{each} ({value:.4g})" for each, value in better.items())
    return _refused(f"{name} is {metrics[name]:.4g}, that of {beaten} as good or better: expected to beat them")


def _refused(reason: str) -> dict[str, Any]:
    return {"promoted": False, "reason": reason}


def _names(session: Session) -> str:
    return " and ".join(target.name for target in session.metadata.targets)


def _parts(store: Store, task: Task, row: RunRow, path: str | Path) -> tuple[Parts, NDArray[np.int64]]:
    """Read the data set of a run, split as the run split it; and the numbers of the samples its model knows."""
    if not Path(path).is_dir():
        raise InputError(
            f"the data set of run {row.id} is not at {path or 'any known place'} any more: "
            "simulate it there again, it has the same digest, then promote"
        )
    recorded = runs.configuration(store, row.id)
    train = validate(TrainConfig, recorded["train"], "train")
    parts = load_parts(path, task, _split(recorded), train.targets)
    if parts.samples.attributes["digest"] != row.tags["data.digest"]:
        raise InputError(
            f"{path} has digest {parts.samples.attributes['digest'][:12]}, run {row.id} was trained on "
            f"{row.tags['data.digest'][:12]}: put the run's data set back, then promote"
        )
    return parts, parts.fitted(train.refit).coordinates["sample"]


def _split(recorded: Mapping[str, Any]) -> SplitConfig:
    return validate(SplitConfig, recorded["split"], "split")


def _version_of(store: Store, task: Task, row: RunRow) -> ModelVersionInfo:
    with tempfile.TemporaryDirectory() as folder:
        number = published(store, task, row, Path(folder) / "model.onnx")
    return models.version(store, model_name(task), number)
