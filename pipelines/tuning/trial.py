"""One trial: a training that continues where a killed worker left it, and its values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from pipelines.learning.fitting import Parts, fit
from pipelines.learning.network import CHECKPOINTS, checkpoint_of, forget
from pipelines.settings import Settings
from pipelines.tuning.space import SearchSpace
from stm_models.networks import bundle
from stm_models.tasks.perturbation import CLEAN
from stm_models.training.latency import latency
from tracking import trials
from tracking.runs import Run

__all__ = ["Checkpoints", "objective", "values_of"]


class Checkpoints:
    """Where the unfinished trainings of a study are kept, in the working directory.

    Parameters
    ----------
    identity : str
        Hexadecimal, of the study: another one of the same name has other files.
    """

    def __init__(self, identity: str) -> None:
        self._stem = f"tune-{identity[:12]}"

    def of(self, trial: Any) -> Path:
        """Return the file of a trial and of all that run it again."""
        return checkpoint_of(f"{self._stem}-{trials.origin(trial):05d}")

    def forget(self, trial: Any) -> None:
        """Delete what is kept of a trial that ended."""
        forget(self.of(trial))

    def forget_finished(self, study: Any) -> None:
        """Delete what is kept of trials of ``study`` that nobody will go on with."""
        # First the files: a trial that another command begins after this is not among them.
        kept = [*CHECKPOINTS.glob(f"{self._stem}-*"), *CHECKPOINTS.glob(f".{self._stem}-*")]
        wanted = trials.unfinished(study)
        for path in kept:
            number = path.name.removeprefix(".").removeprefix(f"{self._stem}-").partition(".")[0]
            if int(number) not in wanted:
                path.unlink(missing_ok=True)


def values_of(chosen: Settings, parts: Parts) -> dict[str, str]:
    """Return the names of a trial's values with their directions.

    The error is what decides between models; while a trial runs it is judged on validation states.
    """
    robust = "robust_" if set(parts.judged) != {CLEAN.name} else ""
    error = f"{parts.decisive}{robust}{chosen.task.metric}"
    names = {"error": error, "latency": "latency_ms"}
    larger = {error} if chosen.task.larger_is_better else set()
    return {names[each]: "maximize" if names[each] in larger else "minimize" for each in chosen.tune.objectives}


def objective(
    chosen: Settings, parts: Parts, space: SearchSpace, checkpoints: Checkpoints, study: Any
) -> Callable[[optuna.Trial, Run], tuple[float, ...]]:
    """Return what trains and judges one trial.

    Parameters
    ----------
    chosen : Settings
    parts : Parts
        The data set, split.
    space : SearchSpace
        What a trial's parameters are drawn from.
    checkpoints : Checkpoints
        Where a trial's training is kept until the trial ends.
    study : optuna.Study
        The one of the trials.

    Returns
    -------
    callable
        Takes a trial and its run in progress; returns the values that `values_of` names, and raises
        ``optuna.TrialPruned`` after an epoch at which the study's pruner ends it.
    """
    names, measure = list(values_of(chosen, parts)), f"val_{chosen.task.metric}"

    def work(trial: optuna.Trial, record: Run) -> tuple[float, ...]:
        config = space.config(trial, chosen)
        known = study.get_trials(deepcopy=False)[trial.number]
        for epoch, value in known.intermediate_values.items():
            record.metrics({measure: value}, epoch)

        def report(epoch: int, entry: dict[str, float]) -> None:
            if len(names) > 1:
                trials.note_epoch(trial, epoch)
                return
            if epoch not in known.intermediate_values:
                trial.report(entry[measure], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned(f"pruned after epoch {epoch}")

        trial.set_user_attr("train", config.model_dump(mode="json"))
        fitted = fit(record, chosen, config, parts, on_epoch=report, baselines=False, checkpoint=checkpoints.of(known))
        scores = dict(fitted.metrics)
        if "latency_ms" in names:
            model = bundle.load(record.file("bundle")).model
            scores["latency_ms"] = latency(model, parts.samples.images.shape[1:])
            record.metrics({"latency_ms": scores["latency_ms"]})
        return tuple(scores[name] for name in names)

    return work
