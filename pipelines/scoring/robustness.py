"""How good a model is on the images of every perturbation set that models of its task are judged on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stm_models.data.dataset import Samples, holds
from stm_models.errors import InputError
from stm_models.tasks.base import Task
from stm_models.tasks.outputs import Predictor
from stm_models.tasks.perturbation import CLEAN, Perturbation, find
from stm_models.training.perturbations import perturbed

__all__ = ["SEED", "better_baselines", "combined", "judged_metric", "judged_sets", "judging", "robust_scores"]

SEED = 0
"""Of the perturbed images that models are judged on: the same for all of them."""


def judged_sets(task: Task, samples: Samples, names: Sequence[str] | None = None) -> dict[str, Samples]:
    """Return ``samples`` as perturbation sets have them, by name.

    Parameters
    ----------
    task : Task
    samples : Samples
    names : sequence of str, optional
        By default all that models are judged on, but those made from arrays which the data set does not hold.

    Raises
    ------
    InputError
        For a name that is none of the task's sets, or of a set made from an array which the data set does not hold.
    """
    chosen = judging(task, samples, names)
    return {
        one.name: samples if one == CLEAN else replace(samples, images=perturbed(one, samples, SEED)) for one in chosen
    }


def judging(task: Task, samples: Samples, names: Sequence[str] | None = None) -> list[Perturbation]:
    """Return the perturbation sets that models are judged on with these samples, as `judged_sets` makes them."""
    sets = task.perturbations()
    if names is None:
        return [one for one in sets if one.judged and not _lacking(one, samples)]
    chosen = [find(sets, name) for name in names]
    for one in chosen:
        if lacking := _lacking(one, samples):
            raise InputError(
                f"models are to be judged on {one.name!r}, which is made from {lacking!r}, and {samples.path} does not "
                "hold it: leave the set out (split.judged), or simulate a data set that keeps it"
            )
    return chosen


def _lacking(one: Perturbation, samples: Samples) -> str:
    """Return the first array that a set is made from and the data set does not hold; empty where it holds all."""
    return next((name for name in one.needs if not holds(samples, name)), "")


def robust_scores(
    task: Task, predictor: Predictor, sets: Mapping[str, Samples], calibration: Mapping[str, Any]
) -> dict[str, float]:
    """Return the metrics on every set but the clean one, e.g. ``mild.mae``, and ``robust_mae``, the mean over all.

    None of either where clean images alone are judged on.
    """
    if set(sets) == {CLEAN.name}:
        return {}
    return combined(task, {name: task.metrics(predictor(part), part, calibration) for name, part in sets.items()})


def combined(task: Task, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return what `robust_scores` does of the metrics on every set, by its name."""
    if set(scores) == {CLEAN.name}:
        return {}
    mean = float(np.mean([found[task.metric] for found in scores.values()]))
    named = {f"{name}.{key}": value for name, found in scores.items() if name != CLEAN.name
             for key, value in found.items()}  # fmt: skip
    return {**named, f"robust_{task.metric}": mean}


def judged_metric(task: Task, names: Container[str]) -> str:
    """Return the name of the metric that decides, of the ``names`` that a run has.

    The mean over all perturbation sets where there are several; on unseen values where there are any.
    """
    wanted = (f"unseen_robust_{task.metric}", f"unseen_{task.metric}", f"robust_{task.metric}")
    return next((name for name in wanted if name in names), task.metric)


def better_baselines(task: Task, name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the baselines that a run's model does not beat by the metric ``name``, with their values.

    ``metrics``: of the run, those of a baseline with its name before them (``ridge.mae``).
    """
    ours = metrics[name]
    theirs = {key.removesuffix(f".{name}"): value for key, value in metrics.items() if key.endswith(f".{name}")}
    return {key: value for key, value in theirs.items() if (value >= ours if task.larger_is_better else value <= ours)}
