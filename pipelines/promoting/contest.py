"""What a model file answers on held-out samples, and how candidate and champion compare, state by state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.asking import predict_all
from deploy.model.session import Session
from pipelines.scoring.robustness import combined, judged_metric
from stm_models.data.dataset import Samples
from stm_models.tasks.base import Task
from stm_models.tasks.perturbation import CLEAN

__all__ = ["Performance", "differences", "milliseconds", "perform"]

Array = NDArray[Any]
_BOUNDS = ("lower", "upper")
_RUNS = 21


@dataclass(frozen=True)
class Performance:
    """A file's answers to held-out samples.

    Attributes
    ----------
    metric : str
        What decides: the task's, over all sets where there are several.
    value : float
    by_set : mapping of str to float
        The task's metric on every perturbation set.
    answers : mapping of str to (S, ...) array
    errors : mapping of str to (S,) float
        Every sample's own metric; its sign is such that less is better.
    hits : mapping of str to (G,) bool
        For every set, whether the interval of a state's first sample holds the truth; empty where the file has none.
    """

    metric: str
    value: float
    by_set: Mapping[str, float]
    answers: Mapping[str, Array]
    errors: Mapping[str, Array]
    hits: Mapping[str, Array]


def perform(task: Task, session: Session, sets: Mapping[str, Samples]) -> Performance:
    """Ask a model file about every set of samples and score its answers."""
    names = [name for name in ("prediction", *_BOUNDS) if name in session.output_names]
    calibration = session.metadata.calibration
    outputs = {key: predict_all(session, part.images, names) for key, part in sets.items()}
    answers = {key: found["prediction"].astype(np.float64) for key, found in outputs.items()}
    scores = {key: task.metrics(answers[key], part, calibration) for key, part in sets.items()}
    by_set = {key: found[task.metric] for key, found in scores.items()}
    found = combined(task, scores) or {task.metric: by_set[CLEAN.name]}
    metric = judged_metric(task, found)
    sign = -1.0 if task.larger_is_better else 1.0
    errors = {
        key: sign * np.array([
            task.metrics(answers[key][row : row + 1], part.subset(np.array([row])), calibration)[task.metric]
            for row in range(len(part))
        ])
        for key, part in sets.items()
    }  # fmt: skip
    hits = {}
    if len(names) == 1 + len(_BOUNDS):
        hits = {name: hit for key, found in outputs.items() for name, hit in _hits(key, found, sets[key])}
    return Performance(metric, found[metric], by_set, answers, errors, hits)


def differences(ours: Performance, theirs: Performance, sets: Mapping[str, Samples]) -> Array:
    """Return the candidate's error less the champion's of every state, mean over its samples and the sets: (G,)."""
    gaps = np.mean([ours.errors[key] - theirs.errors[key] for key in sets], axis=0)
    groups = next(iter(sets.values())).coordinates["group"]
    _, state = np.unique(groups, return_inverse=True)
    return np.bincount(state, gaps) / np.bincount(state)


def milliseconds(session: Session, image: Array) -> float:
    """Return the median time of a prediction for ``image`` (1, C, H, W)."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        session.run(image)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def _hits(key: str, outputs: Mapping[str, Array], part: Samples) -> list[tuple[str, Array]]:
    """Return for every target, which has bounds of its own, whether they hold each state's truth."""
    _, first = np.unique(part.coordinates["group"], return_index=True)
    lower, upper, truth = outputs["lower"][first], outputs["upper"][first], part.targets[first]
    names = [target["name"] for target in part.attributes["targets"]]
    labels = [f"{key} {name}" for name in names] if len(names) > 1 else [key]
    return list(zip(labels, ((lower <= truth) & (truth <= upper)).T, strict=True))
