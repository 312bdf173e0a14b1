"""A data set and its split into training, validation and values never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.scoring.robustness import judged_sets, judging
from pipelines.settings import SplitConfig
from stm_models.data.dataset import Samples, load, task_of
from stm_models.data.splits import Split, split
from stm_models.errors import InputError
from stm_models.tasks.base import Task

__all__ = ["Parts", "divide", "enough_to_train", "load_parts", "split_samples"]


@dataclass(frozen=True)
class Parts:
    """A data set of a task and its split; ``sets`` names the perturbation sets that decide, ``None``: the task's.

    ``memory`` keeps what takes long to make of it, for the next training.
    """

    task: Task
    samples: Samples
    train: Samples
    validation: Samples
    unseen: Samples
    sets: tuple[str, ...] | None = None
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def fitted(self, refit: bool) -> Samples:
        """Return what a model is fitted to: with ``refit`` the validation samples too, in the data set's order."""
        if not refit:
            return self.train
        known = np.concatenate([part.coordinates["sample"] for part in (self.train, self.validation)])
        return self.samples.subset(np.flatnonzero(np.isin(self.samples.coordinates["sample"], known)))

    @property
    def scored(self) -> dict[str, Samples]:
        """The sets that are scored, by the prefix of their metrics."""
        sets = {"": self.validation, "unseen_": self.unseen}
        return {prefix: part for prefix, part in sets.items() if len(part)}

    @property
    def decisive(self) -> str:
        """The prefix of the metrics that decide: those of unseen values where there are any."""
        return list(self.scored)[-1]

    @property
    def note(self) -> str:
        """What a reader of the metrics of unseen values should know; may be empty."""
        names, held = [target["name"] for target in self.samples.attributes["targets"]], self.task.stratify
        if held in names or not len(self.unseen):
            return ""
        return (
            f"unseen_… are of values of {held} that were held out: the same values of {' and '.join(names)} may have "
            "been trained on"
        )

    @cached_property
    def judged(self) -> dict[str, Samples]:
        """The samples that decide, as every perturbation set has them that models are judged on."""
        return judged_sets(self.task, self.scored[self.decisive], self.sets)


def load_parts(path: str | Path, task: Task, config: SplitConfig, targets: Sequence[str] | None = None) -> Parts:
    """Read a data set of ``task`` with some of its labels as ``targets`` and split it by group.

    Raises
    ------
    InputError
        For a data set that cannot be read, of another task, without such targets, with one that a chain's states share,
        without what the sets that decide are made from, or too small to split and to train on.
    """
    if (its := task_of(path)) != task.name:  # first, since another task's data lack targets and arrays
        raise InputError(
            f"{path} is a data set of task {its!r}, expected {task.name!r}: give the task's own data set with --data"
        )
    samples = load(
        path, verify=True, include_unconverged=config.include_unconverged, targets=targets, arrays=task.arrays
    )
    _differ_along_chains(samples)
    judging(task, samples, config.judged)
    enough_to_train(samples, task, config)
    return divide(samples, task, config)


def divide(samples: Samples, task: Task, config: SplitConfig) -> Parts:
    """Split samples by group."""
    chosen = split_samples(samples, task, config)
    train, validation, unseen = (samples.subset(rows) for rows in (chosen.train, chosen.validation, chosen.unseen))
    return Parts(task, samples, train, validation, unseen, config.judged)


def split_samples(samples: Samples, task: Task, config: SplitConfig) -> Split:
    """Split by simulated state, stratified as the task says, some values held out where it has unseen ones."""
    return split(
        samples.coordinates["group"], samples.coordinates[task.stratify],
        unseen_fraction=config.unseen_fraction if task.unseen else 0,
        validation_fraction=config.validation_fraction, seed=config.seed,
        fold=(config.fold, config.folds) if config.folds else None,
    )  # fmt: skip


def enough_to_train(samples: Samples, task: Task, config: SplitConfig) -> None:
    """Refuse a split that leaves less than two states to train on, as baselines are cross-validated by state.

    Raises
    ------
    InputError
        Then, and as `stm_models.data.splits.split`.
    """
    rows = split_samples(samples, task, config)
    left, validating = (len(np.unique(samples.coordinates["group"][part])) for part in (rows.train, rows.validation))
    if left >= 2:
        return
    found = f"{samples.path} has {left} state to train on and {validating} that validate, expected at least 2"
    if config.folds:
        raise InputError(f"{found}: split.folds is {config.folds}, give another, or simulate more states")
    if validating >= 2:
        raise InputError(f"{found}: split.validation_fraction is {config.validation_fraction:g}, give a smaller one")
    raise InputError(f"{found}: simulate more states")


def _differ_along_chains(samples: Samples) -> None:
    """Refuse a target that the states of each chain share: a split by state would train on what it validates."""
    chain, state = (samples.coordinates[name] for name in ("chain", "group"))
    _, first, chain_of = np.unique(chain, return_index=True, return_inverse=True)
    if samples.targets.ndim > 2 or np.array_equal(state[first][chain_of], state):
        return
    for target, values in zip(samples.attributes["targets"], samples.targets.T, strict=True):
        if len(np.unique(values)) > 1 and np.array_equal(values[first][chain_of], values):
            raise InputError(
                f"target {target['name']!r} of {samples.path} is the same for all states of a chain, whose states the "
                "split puts on both sides: expected a target that differs along chains, or chains of one state each; "
                "simulate those, e.g. with simulate.interaction_count=1, simulate.interaction_sampling=uniform and as "
                "many replicates as states"
            )
