"""Which model is the champion: one that passes every gate, on samples that neither it nor the one before knows."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deploy.model.session import Session
from pipelines import settings
from pipelines.learning import calibrating
from pipelines.learning.recording import baseline_scores
from pipelines.learning.training_data import training_data
from pipelines.promoting import gates
from pipelines.promoting.contest import Performance, differences, milliseconds, perform
from pipelines.promoting.gates import Gate
from pipelines.promoting.held_out import HeldOut, fresh, held_out
from pipelines.promoting.model_card import attach
from pipelines.promoting.publishing import CHAMPION, best_run, model_name, of_fold, published
from pipelines.scoring.robustness import better_baselines, judged_metric
from pipelines.settings import PromoteConfig
from stm_models.errors import InputError
from stm_models.networks import bundle
from stm_models.tasks.base import Task
from stm_models.training.predict import predict
from stm_models.unfinished import scratch
from tracking import models, runs
from tracking.delivery import deleted
from tracking.lock import exclusive
from tracking.models import ModelVersionInfo
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["promote", "rollback"]

_COMPARED = 16  # samples on which file and torch model are compared
_BEFORE, _SINCE = "champion.before", "champion.since"


def promote(
    store: Store,
    task: Task,
    run_id: str | None = None,
    data: str | Path | None = None,
    *,
    config: PromoteConfig | None = None,
    on: str | Path | None = None,
    force: str | None = None,
    version: ModelVersionInfo | None = None,
    among: int = 1,
) -> dict[str, Any]:
    """Make a run's model the champion if it passes every gate.

    Parameters
    ----------
    run_id : str, optional
        Default: see `best_run`. A run without an exported model is exported first.
    data : path, optional
        Where the run's data set is now, if not where it was.
    config : PromoteConfig, optional
        What the gates allow.
    on : path, optional
        A data set simulated for the purpose, to judge on instead of what the run held out.
    force : str, optional
        Promote all the same, for this reason, which the version keeps.
    version : ModelVersionInfo, optional
        The version of the run's to judge; by default its champion, else its newest.
    among : int
        How many runs it was chosen from by what they held out, which the gate ``champion`` says.

    Returns
    -------
    dict
        model, version, run_id, promoted, forced, reason, metric, value, champion (version and value before), gates.

    Raises
    ------
    InputError
        When there is nothing to promote or to judge on, or another model became champion meanwhile.
    """
    name, config = model_name(task), config or PromoteConfig.model_validate({})
    with _alone(store, name):
        row = runs.get(store, run_id) if run_id else best_run(store, task)
        if deleted(store, row.id):
            raise InputError(
                f"run {row.id} is deleted: restore it (mlflow runs restore --run-id {row.id}), or promote another"
            )
        if version is not None and version.name != name:
            raise InputError(f"models:/{version.name}/{version.version} is no model of task {task.name} ({name})")
        candidate = version or _version_of(store, task, row)
        champion = models.champion(store, name)
        result: dict[str, Any] = {
            "model": name, "version": candidate.version, "run_id": row.id, "promoted": False, "forced": False,
            "metric": judged_metric(task, row.metrics), "gates": [],
            "champion": None if champion is None else {"version": champion.version},
        }  # fmt: skip
        if champion is not None and champion.version == candidate.version:
            return result | {"reason": "it is the champion already"}
        result |= _judge(store, task, row, candidate, champion, config, data, on, 1 if on else among)
        failed = [gate for gate in result["gates"] if gate["verdict"] == "failed"]
        if failed and force:
            result |= {"forced": True, "reason": f"forced ({force}) in spite of: {_reasons(failed)}"}
        elif failed:
            result |= {"reason": _reasons(failed)}
        else:
            won = [gate["reason"] for gate in result["gates"] if gate["name"] == "champion"]
            result |= {"reason": won[0] if won else "there was no champion"}
        result["promoted"] = not failed or bool(force)
        tags = _tags(result, force, candidate.tags)
        # First what another promotion may refuse: no version says that it won and did not.
        if result["promoted"]:
            _crown(store, name, candidate.version, champion)
        models.tag_version(store, name, candidate.version, tags)
        attach(store, task, models.version(store, name, candidate.version))
        if result["promoted"] and champion is not None:
            _describe_anew(store, task, champion.version)
    return result


def rollback(store: Store, task: Task) -> dict[str, Any]:
    """Make the champion of before the champion again.

    Returns
    -------
    dict
        model, version (the champion now), was, promoted, reason.

    Raises
    ------
    InputError
        When there is no champion, none before it is known, or the file of that one cannot be had.
    """
    name = model_name(task)
    with _alone(store, name):
        champion = models.champion(store, name)
        if champion is None:
            raise InputError(f"{name} has no champion: stm promote {task.name} makes one")
        before = champion.tags.get(_BEFORE, "")
        if not before.isdigit():
            raise InputError(f"no champion before version {champion.version} of {name} is known: nothing to go back to")
        info = models.version(store, name, int(before))
        number, reason = info.version, f"version {champion.version} was rolled back"
        _session(store, info)
        if deleted(store, info.run_id):
            reason += (
                f"; run {info.run_id} of version {number} is deleted: until it is restored promotions need --force"
            )
        models.set_alias(store, name, CHAMPION, number)
        models.tag_version(store, name, champion.version, {"champion.rolled_back": _now()})
        _describe_anew(store, task, number, champion.version)
    return {"model": name, "version": number, "was": champion.version, "promoted": True, "reason": reason}


def _judge(
    store: Store,
    task: Task,
    row: RunRow,
    candidate: ModelVersionInfo,
    champion: ModelVersionInfo | None,
    config: PromoteConfig,
    data: str | Path | None,
    on: str | Path | None,
    among: int = 1,
) -> dict[str, Any]:
    """Return ``gates``, and where the two were compared ``metric``, ``value`` and ``champion``."""
    session = _session(store, candidate)
    found: list[Gate] = []
    other = None if champion is None else _session(store, champion)
    if other is not None and champion is not None and (why := _incomparable(session, other, candidate, champion)):
        return {"gates": [Gate("champion", False, why).record()]}
    held = fresh(store, task, row, champion, on, session.metadata) if on else held_out(store, task, row, champion, data)
    if held.problem:
        found.append(Gate("data", False, held.problem))
    if of_fold(row):
        found.append(Gate(
            "folds", False, f"run {row.id} is one of {row.params['split.folds']} folds, which measure a configuration: "
            "expected a training without --folds and split.folds; train so, or give --force WHY",
        ))  # fmt: skip
    result: dict[str, Any] = {}
    metrics = _with_baselines(store, task, row, data)
    if held.sets:
        ours = perform(task, session, held.sets)
        theirs = None if other is None or held.problem else perform(task, other, held.sets)
        if theirs is not None and champion is not None:
            than = f"champion version {champion.version}"
            found.append(gates.better(
                ours.metric, ours.value, theirs.value, differences(ours, theirs, held.sets),
                larger=task.larger_is_better, alpha=config.alpha, than=than, among=among,
            ))  # fmt: skip
            result |= {"metric": ours.metric, "value": ours.value,
                       "champion": {"version": champion.version, "value": theirs.value}}  # fmt: skip
        found += _alone_judged(store, task, row, session, held, ours, theirs, config)
    metric = judged_metric(task, row.metrics)
    found.append(gates.baselines(metric, metrics[metric], better_baselines(task, metric, metrics)))
    return {"gates": [gate.record() for gate in found], **result}


def _alone_judged(
    store: Store,
    task: Task,
    row: RunRow,
    session: Session,
    held: HeldOut,
    ours: Performance,
    theirs: Performance | None,
    config: PromoteConfig,
) -> list[Gate]:
    """Return the gates of the candidate's own answers."""
    name, part = next(iter(held.sets.items()))
    few = part.subset(np.arange(min(_COMPARED, len(part))))
    model = bundle.load(runs.download(store, row.id, "bundle")).model
    single = Session(session.path, provider="cpu", threads=1)
    answers, precision = (ours.answers[name][:_COMPARED], predict(model, few.images)), session.metadata.precision
    found = [
        gates.robustness(
            task.metric, ours.by_set, {} if theirs is None else theirs.by_set, config.floors,
            larger=task.larger_is_better, slack=config.slack,
        ),
        gates.parity(*answers, config.parity) if precision["kind"] == "fp32" else gates.budget(*answers, precision),
        gates.sanity(ours.answers[name]),
        gates.latency(milliseconds(single, few.images[:1]), config.latency_ms),
    ]  # fmt: skip
    return [*found, _coverage(session, held, ours)]


def _coverage(session: Session, held: HeldOut, ours: Performance) -> Gate:
    """Judge the file's intervals, where it has any and learnt them elsewhere."""
    if not ours.hits:
        return Gate("coverage", None, "the file has no intervals")
    about = session.metadata.as_dict()
    interval = about["interval"]
    if taught := held.taught(interval, about["data"]["digest"]):
        words = f"{taught} was learnt from the very states that are held out: judge with --on FRESH.zarr"
        return Gate("coverage", None, words)
    return gates.coverage(ours.hits, interval["level"])


def _incomparable(ours: Session, theirs: Session, candidate: ModelVersionInfo, champion: ModelVersionInfo) -> str:
    """Say why the two cannot be compared; empty where they can."""
    end = f"so the two cannot be compared; serve models:/{candidate.name}/{candidate.version} by its number"
    if not ours.metadata.input.agrees(theirs.metadata.input):
        return f"champion version {champion.version} takes other images, {end}"
    if ours.metadata.targets != theirs.metadata.targets:
        return f"champion version {champion.version} predicts {_names(theirs)}, this one {_names(ours)}, {end}"
    return ""


def _with_baselines(store: Store, task: Task, row: RunRow, data: str | Path | None) -> Mapping[str, float]:
    """Return the run's metrics, with those of the baselines, fitted now where the run left them out (a trial does)."""
    name = judged_metric(task, row.metrics)
    if any(key.endswith(f".{name}") for key in row.metrics):
        return row.metrics
    parts = training_data(store, row).parts(data)
    values = runs.configuration(store, row.id)
    chosen = settings.load(task.name, values["preset"], recorded=values)
    refit = chosen.train.refit
    held = calibrating.calibration_samples(chosen, parts, refit=refit)
    scores = baseline_scores(task, parts, held.samples, chosen.train.seed, refit=refit)
    found = {f"{baseline}.{key}": value for baseline, own in scores.items() for key, value in own.items()}
    record = runs.existing(store, row.id)
    record.metrics(found)
    return {**row.metrics, **found}


def _crown(store: Store, name: str, number: int, before: ModelVersionInfo | None) -> None:
    """Move the alias, unless another model became champion while this one was judged."""
    now = models.champion(store, name)
    if (now and now.version) != (before and before.version):
        raise InputError(
            f"version {now.version if now else 'none'} of {name} became champion while version {number} was judged: "
            "run stm promote again"
        )
    models.tag_version(store, name, number, {_BEFORE: str(before.version) if before else "none", _SINCE: _now()})
    models.set_alias(store, name, CHAMPION, number)


def _describe_anew(store: Store, task: Task, *versions: int) -> None:
    """Write the cards of versions whose aliases changed, where their runs are still there."""
    for number in versions:
        with suppress(InputError):
            attach(store, task, models.version(store, model_name(task), number))


def _tags(result: Mapping[str, Any], force: str | None, before: Mapping[str, str]) -> dict[str, Any]:
    """Return every gate's verdict and numbers as tags of the version; those of an earlier judgement are emptied."""
    tags: dict[str, Any] = dict.fromkeys((key for key in before if key.startswith("gate.")), "")
    tags |= {f"gate.{key}": result[key] for key in ("promoted", "reason", "metric", "forced")}
    tags["gate.forced_by"] = f"{_user()}: {force}" if result["forced"] else ""
    tags |= {f"gate.{gate['name']}": f"{gate['verdict']}: {gate['reason']}" for gate in result["gates"]}
    return tags | {"gates": json.dumps(result["gates"]), "gate.time": _now()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # in a container: a number without an entry in passwd
        return str(os.getuid())


def _reasons(failed: list[dict[str, Any]]) -> str:
    return "; ".join(str(gate["reason"]) for gate in failed)


def _names(session: Session) -> str:
    return " and ".join(target.name for target in session.metadata.targets)


def _session(store: Store, info: ModelVersionInfo) -> Session:
    return Session(models.resolve(store, f"models:/{info.name}/{info.version}"))


def _version_of(store: Store, task: Task, row: RunRow) -> ModelVersionInfo:
    with scratch() as folder:
        number = published(store, task, row, folder / "model.onnx")
    return models.version(store, model_name(task), number)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _alone(store: Store, name: str) -> Iterator[None]:
    """One promotion of a model at a time, among the users of a local store; on a server `_crown` looks again."""
    if store.folder is None:
        yield
        return
    with exclusive(store.folder / f".{name}.promotion.lock"):
        yield
