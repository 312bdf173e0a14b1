"""What a trained model is worth, and the record of it: what a training and an ensemble of trainings share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from pipelines.learning.calibrating import CalibrationSamples, calibration_samples
from pipelines.learning.parts import Parts
from pipelines.learning.trust import Trust, trust
from pipelines.scoring.points import log_predictions
from pipelines.scoring.robustness import better_baselines, judged_metric, robust_scores
from pipelines.settings import Settings
from stm_models.data.dataset import Samples
from stm_models.explain.references import references
from stm_models.networks import bundle
from stm_models.networks.model import Model
from stm_models.tasks.base import Task
from stm_models.tasks.outputs import Predictor
from stm_models.tasks.perturbation import find
from stm_models.training.config import TrainConfig
from stm_models.training.predict import predict
from stm_models.unfinished import scratch
from tracking import datasets
from tracking.runs import Run

__all__ = ["Fitted", "baseline_scores", "calibrating", "decision", "fit_baselines", "keep", "opened"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Fitted:
    """A recorded training: where, and how well on the validation states and on unseen values."""

    run_id: str
    network: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


def decision(task: Task, fitted: Fitted) -> dict[str, Any]:
    """Return the name of the metric that decides, ``judged``, and the baselines as good or better by it, ``better``."""
    judged = judged_metric(task, fitted.metrics)
    named = {f"{name}.{key}": value for name, found in fitted.baselines.items() for key, value in found.items()}
    return {"judged": judged, "better": better_baselines(task, judged, {**fitted.metrics, **named})}


def opened(
    run: Run, settings: Settings, config: TrainConfig, parts: Parts, recipe: str, about: Mapping[str, Any] | None = None
) -> None:
    """Record what is known before a model is made: configuration, data set, code, machine and seeds.

    Parameters
    ----------
    run : Run
        A run in progress.
    config : TrainConfig
    recipe : str
        What identifies the training before it is done.
    about : mapping, optional
        Further sections of the configuration.
    """
    task, attributes = settings.task, parts.samples.attributes
    run.config({**settings.record("split", "calibrate"), "train": config.model_dump(mode="json"), **(about or {})})
    run.tags(
        {
            "task": task.name,
            "network": config.network,
            "data.path": str(parts.samples.path.absolute()),
            "training.recipe": recipe,
        }
    )
    run.json(find(task.perturbations(), config.perturbation).record(), "perturbation.json")
    datasets.log(run, {**attributes, "samples": len(parts.samples)}, parts.samples.path)
    run.environment({"train": config.seed, "split": settings.split.seed})
    run.json(attributes, "data.json")


def calibrating(run: Run, settings: Settings, config: TrainConfig, parts: Parts) -> CalibrationSamples:
    """Return what to calibrate on, and record which it is; errors as `calibration_samples`."""
    held = calibration_samples(settings, parts, refit=config.refit)
    if held.note:
        print(held.note)
        run.tags({"calibration.note": held.note})
    datasets.log(run, {**held.samples.attributes, "samples": len(held.samples)}, held.samples.path, "calibration")
    return held


def keep(
    run: Run,
    settings: Settings,
    config: TrainConfig,
    parts: Parts,
    held: CalibrationSamples,
    model: Model,
    *,
    chosen: Model | None = None,
    history: Sequence[Mapping[str, float]] = (),
    baselines: bool = True,
) -> Fitted:
    """Score and calibrate a model, and record both with figures and the bundle.

    Parameters
    ----------
    run : Run
        A run in progress.
    settings : Settings
    config : TrainConfig
        How it was trained.
    parts : Parts
    held : CalibrationSamples
    model : Model
        What is exported.
    chosen : Model, optional
        The one before it was fitted again, with ``train.refit``: what the validation samples judge.
    history : sequence of mapping
        The entry of every epoch.
    baselines : bool
        Whether the task's baselines are fitted and logged beside it.
    """
    task = settings.task
    calibration = _calibrated(task, model, held.samples)
    # A model fitted again knows the validation samples: they judge the one before, with a calibration of its own.
    first = chosen if config.refit and chosen is not None else model
    before = calibration if first is model else _calibrated(task, first, held.samples)
    judges = {"": (first, before), "unseen_": (model, calibration)}
    predictions = {prefix: predict(judges[prefix][0], part.images) for prefix, part in parts.scored.items()}
    scores = _scored(task, predictions, parts.scored, {prefix: own for prefix, (_, own) in judges.items()})
    decides, own = judges[parts.decisive]
    scores |= _robust(task, lambda samples: predict(decides, samples.images), parts, own)
    perturbation = find(task.perturbations(), config.perturbation)
    known = trust(settings, model, parts.fitted(config.refit), held, perturbation, config.seed)
    scores |= known.scores
    for name, note in known.notes.items():
        print(note)
        run.tags({f"{name}.note": note})
    run.metrics(scores)
    beside = _baselines(run, task, config, parts, held.samples) if baselines else {}
    names = {"": "validation", "unseen_": "unseen values"}
    shown = {names[prefix]: (part, predictions[prefix]) for prefix, part in parts.scored.items()}
    log_predictions(run, task, shown, own)
    drawn = task.run_figures(shown, calibration=own, history=history, examples=parts.samples)
    for name, figure in drawn.items():
        run.figure(figure, f"figures/{name}.png")
    _bundle(run, settings, config, parts, model, scores, known, calibration)
    return Fitted(run.id, config.network, scores, beside)


def _scored(
    task: Task,
    predictions: Mapping[str, Array],
    sets: Mapping[str, Samples],
    calibrations: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """Metrics of predictions for sets of samples, each with its calibration and its name before them."""
    return {
        f"{prefix}{key}": value
        for prefix, part in sets.items()
        for key, value in task.metrics(predictions[prefix], part, calibrations[prefix]).items()
    }


def fit_baselines(task: Task, train: Samples, held: Samples, seed: int) -> dict[str, tuple[Predictor, dict[str, Any]]]:
    """Fit the task's baselines to ``train`` and calibrate each on ``held``, which is not what they are scored on."""
    return {
        name: (predictor, task.calibrate(predictor(held), held))
        for name, predictor in task.baselines(train, seed).items()
    }


def baseline_scores(
    task: Task, parts: Parts, held: Samples, seed: int, *, refit: bool = False
) -> dict[str, dict[str, float]]:
    """Return the scores of every baseline, calibrated on ``held`` as a network is, under the names of a network's.

    With ``refit`` those on unseen values are of baselines fitted to the validation samples too, as the network is.
    """
    first = fit_baselines(task, parts.train, held, seed)
    final = fit_baselines(task, parts.fitted(refit=True), held, seed) if refit and len(parts.unseen) else first
    return {name: _baseline_scores(task, parts, {"": first[name], "unseen_": final[name]}) for name in first}


def _baseline_scores(
    task: Task, parts: Parts, judges: Mapping[str, tuple[Predictor, Mapping[str, Any]]]
) -> dict[str, float]:
    """Scores of one baseline: by the prefix of their metrics, the predictor and its calibration."""
    predictions = {prefix: judges[prefix][0](part) for prefix, part in parts.scored.items()}
    scores = _scored(task, predictions, parts.scored, {prefix: own for prefix, (_, own) in judges.items()})
    predictor, own = judges[parts.decisive]
    return scores | _robust(task, predictor, parts, own)


def _calibrated(task: Task, model: Model, held: Samples) -> dict[str, Any]:
    return task.calibrate(predict(model, held.images), held)


def _robust(task: Task, predictor: Predictor, parts: Parts, calibration: Mapping[str, Any]) -> dict[str, float]:
    found = robust_scores(task, predictor, parts.judged, calibration)
    return {f"{parts.decisive}{key}": value for key, value in found.items()}


def _baselines(run: Run, task: Task, config: TrainConfig, parts: Parts, held: Samples) -> dict[str, dict[str, float]]:
    scores = baseline_scores(task, parts, held, config.seed, refit=config.refit)
    run.metrics({f"{name}.{key}": value for name, found in scores.items() for key, value in found.items()})
    return scores


def _bundle(
    run: Run,
    settings: Settings,
    config: TrainConfig,
    parts: Parts,
    model: Model,
    scores: Mapping[str, float],
    known: Trust,
    calibration: Mapping[str, Any],
) -> None:
    attributes = parts.samples.attributes
    info = {
        "task": settings.task.name, "network": config.network, "options": config.options,
        "input": attributes["input"], "targets": attributes["targets"], "explained": 0,
        "data": {
            "recipe": attributes["recipe"], "digest": attributes["digest"], "perturbation": config.perturbation,
        },
        "metrics": dict(scores), "calibration": dict(calibration), **known.about,
    }  # fmt: skip
    with scratch() as folder:
        compared = references(parts.train.images, known.held, config.seed)
        path = bundle.save(
            folder / "bundle", model, known.novelty, json.loads(json.dumps(info)), compared, known.interval
        )
        run.artifact(path, "bundle")
