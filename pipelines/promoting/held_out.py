"""Samples on which a candidate and a champion can be judged: those that neither was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.model.metadata import ModelMetadata
from deploy.model.questions import check_fits
from pipelines.learning.training_data import training_data
from pipelines.scoring.robustness import judged_sets
from pipelines.settings import SplitConfig
from stm_models.config import validate
from stm_models.data.dataset import Samples, load
from stm_models.errors import InputError
from stm_models.tasks.base import Task
from tracking import runs
from tracking.lineage import MEMBERS
from tracking.models import ModelVersionInfo
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["HeldOut", "fresh", "held_out", "repeated"]

_CALIBRATED = "data.calibration.digest"


@dataclass(frozen=True)
class HeldOut:
    """What a candidate is judged on.

    Attributes
    ----------
    sets : mapping of str to Samples
        The held-out samples, by perturbation set; empty where there are none.
    problem : str
        Why candidate and champion cannot be compared on them; empty where they can.
    part : str
        Which part of the candidate's data set they are: ``unseen`` or ``validation``; empty for another data set.
    """

    sets: Mapping[str, Samples]
    problem: str = ""
    part: str = ""

    def taught(self, interval: Mapping[str, Any], training: str) -> str:
        """Say what an interval learnt from these samples; empty where nothing.

        Parameters
        ----------
        interval : mapping
            As the model's file describes it.
        training : str
            Digest of the training data. Older files do not say what the spread is from: validation and unseen states.
        """
        digests = {str(part.attributes["digest"]) for part in self.sets.values()}
        if interval.get("digest") in digests:
            return "the factor of the intervals"
        spread = interval.get("spread", {"part": "both", "digest": training})
        if spread["digest"] in digests and (not self.part or spread["part"] in ("both", self.part)):
            return "the spread of the intervals"
        return ""


def held_out(
    store: Store, task: Task, row: RunRow, champion: ModelVersionInfo | None, data: str | Path | None
) -> HeldOut:
    """Return the samples of the candidate's data set that neither knows, of values held out whole where there are any.

    Parameters
    ----------
    row : RunRow
        The candidate's run.
    data : path, optional
        Where the run's data set is now, if not where it was.

    Raises
    ------
    InputError
        When the data set is gone, or another one lies in its place.
    """
    trained = training_data(store, row)
    parts = trained.parts(data)
    part, held = ("unseen", parts.unseen) if len(parts.unseen) else ("validation", parts.validation)
    held = held.subset(~np.isin(held.coordinates["sample"], trained.known(parts)))
    problem = ""
    if not len(held):
        other = "hold out values with --set split.unseen_fraction=0.16, or" if task.unseen else "or"
        problem = (
            f"run {row.id} was fitted to all samples but none of unseen values are held out: "
            f"train without train.refit, {other} judge on states simulated for the purpose with --on FRESH.zarr"
        )
    elif champion is not None and champion.digest != row.tags["data.digest"]:
        problem = (
            f"champion version {champion.version} was trained on other data (digest {(champion.digest or '?')[:12]}, "
            f"this one on {row.tags['data.digest'][:12]}), so nobody can tell which of these samples it knows: "
            "simulate states for the purpose and judge both on them with --on FRESH.zarr"
        )
    elif champion is not None and _gone(store, champion):
        problem = _unknown(champion)
    elif champion is not None:
        # The champion's split may differ: what it was trained on says nothing about it.
        theirs = training_data(store, runs.get(store, champion.run_id))
        held = held.subset(~np.isin(held.coordinates["sample"], theirs.known(theirs.parts(parts.samples.path))))
        if not len(held):
            problem = (
                f"champion version {champion.version} was trained on every sample that this run held out: "
                "train with the champion's split (--set split.seed=...) to compare them"
            )
    return HeldOut(_sets(store, task, row, champion, held), problem, part)


def fresh(
    store: Store,
    task: Task,
    row: RunRow,
    champion: ModelVersionInfo | None,
    path: str | Path,
    about: ModelMetadata,
) -> HeldOut:
    """Return the samples of a data set simulated for the purpose.

    Parameters
    ----------
    row : RunRow
        The candidate's run.
    champion : ModelVersionInfo or None
    path : path
        The data set.
    about : ModelMetadata
        Of the candidate's file.

    Raises
    ------
    InputError
        When it cannot be read, is of another task, or not of the form that the model is ``about``.
    """
    targets = list(runs.configuration(store, row.id)["train"].get("targets") or ()) or None
    samples = load(path, verify=True, targets=targets, arrays=task.arrays)
    attributes = samples.attributes
    if attributes["task"] != task.name:
        raise InputError(f"{path} is a data set of task {attributes['task']!r}: expected {task.name!r}")
    check_fits(samples, about, path)
    problem = ""
    known: dict[str, str] = {}
    gone = champion is not None and _gone(store, champion)
    if champion is not None and not gone:
        theirs, name = runs.get(store, champion.run_id), f"champion version {champion.version}"
        known[theirs.tags.get(_CALIBRATED, "")] = f"{name} was calibrated on"
        known[champion.digest or ""] = f"{name} was trained on"
    known[row.tags.get(_CALIBRATED, "")] = "this model was calibrated on"
    known[row.tags["data.digest"]] = "this model was trained on"
    own = {row.id, *row.tags.get(MEMBERS, "").split(",")} - {""}  # who chooses an ensemble's members chooses it
    read = [
        each for each in runs.find(store, task.name)
        if each.tags.get("data.evaluation.digest") == attributes["digest"] and each.tags.get("evaluated.run") in own
    ]  # fmt: skip
    trained = _trained_on(store, [row.id, *([champion.run_id] if champion else [])])
    drawn = next((run for run, theirs in trained.items() if _seed(theirs) == _seed(attributes) is not None), "")
    again = {run: repeated(task, theirs, attributes) for run, theirs in trained.items()}
    if champion is not None and gone:
        problem = _unknown(champion)
    elif attributes["digest"] in known:
        problem = f"{known[attributes['digest']]} {path}: simulate others with another --seed"
    elif read:
        problem = (
            f"run {read[-1].id} has scored this model on {path} already, so it may have been chosen by it: "
            "test data are read once; simulate others with another --seed"
        )
    elif drawn:
        problem = (
            f"run {drawn} was trained on data of the seed of {path}, {attributes['config']['seed']}, so both may hold "
            "the same states, which are drawn from seed and number: simulate others with another --seed"
        )
    elif any(again.values()):
        run = max(again, key=again.__getitem__)
        problem = (
            f"run {run} was trained on {again[run]} of the states of {path}, whose parameters are the same though the "
            "seed is another: simulate others, with parameters that are drawn from ranges or that the training has not"
        )
    return HeldOut(_sets(store, task, row, champion, samples), problem)


def repeated(task: Task, trained: Mapping[str, Any], attributes: Mapping[str, Any]) -> int:
    """Count the states of a data set that the one trained on holds too; both as their attributes say."""
    made = []
    for each in (trained, attributes):
        try:
            made.append(task.states(validate(task.simulation, each["config"], "the data set's config")))
        except (KeyError, InputError):  # imported, or of another version: nobody can tell
            return 0
    return len(made[0] & made[1])


def _trained_on(store: Store, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the attributes of each run's training data; nothing of a run that kept none."""
    found = {}
    for run_id in run_ids:
        with suppress(InputError):
            found[run_id] = json.loads(runs.download(store, run_id, "data.json").read_text(encoding="utf-8"))
    return found


def _seed(attributes: Mapping[str, Any]) -> int | None:
    seed: int | None = attributes.get("config", {}).get("seed")
    return seed


def _sets(
    store: Store, task: Task, row: RunRow, champion: ModelVersionInfo | None, held: Samples
) -> dict[str, Samples]:
    """Judge by what the champion was judged by: easier sets of the candidate's own choice count for nothing."""
    judge = row.id if champion is None or _gone(store, champion) else champion.run_id
    return judged_sets(task, held, _split(runs.configuration(store, judge)).judged) if len(held) else {}


def _gone(store: Store, champion: ModelVersionInfo) -> bool:
    try:
        runs.get(store, champion.run_id)
    except InputError:
        return True
    return False


def _unknown(champion: ModelVersionInfo) -> str:
    return (
        f"the run of champion version {champion.version}, {champion.run_id}, is gone, so nobody can tell which samples "
        "it knows: restore it (mlflow runs restore), or promote with --force WHY"
    )


def _split(recorded: Mapping[str, Any]) -> SplitConfig:
    return validate(SplitConfig, recorded["split"], "split")
