"""Training one network on a data set as one recorded run: what train, tune and demo share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.learning.calibrating import calibration_samples
from pipelines.learning.network import Learnt, Measured, check, learn
from pipelines.learning.parts import Parts, load_parts, split_samples
from pipelines.learning.trust import Trust, trust
from pipelines.scoring.points import log_predictions
from pipelines.scoring.robustness import robust_scores
from pipelines.settings import Settings
from stm_models.data.dataset import Samples
from stm_models.explain.references import references
from stm_models.files import sha256, sha256_of_json
from stm_models.networks import bundle, registry
from stm_models.networks.model import Model
from stm_models.progress import Progress
from stm_models.tasks.base import Task
from stm_models.tasks.outputs import Predictor
from stm_models.tasks.perturbation import find
from stm_models.training.config import TrainConfig
from stm_models.training.predict import predict
from stm_models.training.trainer import Watch
from stm_models.unfinished import scratch
from tracking import datasets
from tracking.runs import Run

__all__ = [
    "Fitted",
    "Measured",
    "Parts",
    "baseline_scores",
    "fit",
    "fit_baselines",
    "informed",
    "load_parts",
    "recipe",
    "scored",
    "split_samples",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class Fitted:
    """A recorded training: where, and how well on the validation states and on unseen values."""

    run_id: str
    network: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


def informed(task: Task, config: TrainConfig, parts: Parts) -> TrainConfig:
    """Add to the network's options what the data say of the images."""
    known = task.known(parts.samples.attributes)
    return config.model_copy(update={"options": registry.informed(config.network, config.options, known)})


def recipe(settings: Settings, config: TrainConfig, parts: Parts, measured: Measured | None = None) -> str:
    """Identify a training before it is done: task, data, split, training parameters and measured maps.

    A file of weights to start from counts by what it holds, wherever it lies.
    """
    config = informed(settings.task, config, parts)
    if (weights := config.options.get("weights")) is not None:
        registry.check(config.network, config.options)
        config = config.model_copy(update={"options": {**config.options, "weights": sha256(Path(weights))}})
    about = {
        "task": settings.task.name,
        "data": parts.samples.attributes["digest"],
        "split": settings.split.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude={"threads", "device"}),
        "calibrate": settings.calibrate.model_dump(mode="json"),
    }
    if measured is not None and measured.images:
        about["measured"] = sorted(measured.digests.values())
    return sha256_of_json(about)


def scored(
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


def fit(
    run: Run,
    settings: Settings,
    config: TrainConfig,
    parts: Parts,
    *,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    baselines: bool = True,
    checkpoint: Path | None = None,
    measured: Measured | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train, score and record; the run gets data set, configuration, metrics, figures and the model bundle.

    Parameters
    ----------
    run : Run
        A run in progress.
    settings : Settings
    config : TrainConfig
        Training parameters (a trial's differ from ``settings.train``).
    parts : Parts
    on_epoch : callable, optional
        Called with the epoch (from 1) and its metrics; may raise to stop.
    baselines : bool
        Whether the task's baselines are fitted and logged beside it.
    checkpoint : Path, optional
        Where the training state is kept, to continue after an interruption.
    measured : Measured, optional
        Maps without labels that the training uses too; the run says so.
    watch : callable, optional
        Gives further metrics of every epoch's model.

    Raises
    ------
    InputError
        As `stm_models.training.trainer.train`.
    """
    task, attributes, measured = settings.task, parts.samples.attributes, measured or Measured()
    config = informed(task, config, parts)
    run.config({**settings.record("split", "calibrate"), "train": config.model_dump(mode="json")})
    run.tags(
        {
            "task": task.name,
            "network": config.network,
            "data.path": str(parts.samples.path.absolute()),
            "training.recipe": recipe(settings, config, parts, measured),
        }
    )
    if measured.images:
        # What the model is asked about afterwards may have been seen before: nobody is to miss that.
        run.tags({"transductive": True})
        run.json(dict(measured.digests), "measured.json")
    perturbation = find(task.perturbations(), config.perturbation)
    run.json(perturbation.record(), "perturbation.json")
    datasets.log(run, {**attributes, "samples": len(parts.samples)}, parts.samples.path)
    run.environment({"train": config.seed, "split": settings.split.seed})
    run.json(attributes, "data.json")
    check(task, config, parts)
    held = calibration_samples(settings, parts, refit=config.refit)
    if held.note:
        print(held.note)
        run.tags({"calibration.note": held.note})
    datasets.log(run, {**held.samples.attributes, "samples": len(held.samples)}, held.samples.path, "calibration")

    learnt = _learn(run, task, config, parts, measured, on_epoch, checkpoint, watch)
    run.tags({f"start.{key}": value for key, value in learnt.final.model.network.start.items() if value})
    calibration = _calibrated(task, learnt.final.model, held.samples)
    # A model fitted again knows the validation samples: they judge the one before, with a calibration of its own.
    before = _calibrated(task, learnt.chosen.model, held.samples) if config.refit else calibration
    judges = {"": (learnt.chosen.model, before), "unseen_": (learnt.final.model, calibration)}
    predictions = {prefix: predict(judges[prefix][0], part.images) for prefix, part in parts.scored.items()}
    scores = scored(task, predictions, parts.scored, {prefix: own for prefix, (_, own) in judges.items()})
    decides, own = judges[parts.decisive]
    scores |= _robust(task, lambda samples: predict(decides, samples.images), parts, own)
    known = trust(settings, learnt.final.model, parts.fitted(config.refit), held, perturbation, config.seed)
    scores |= known.scores
    for name, note in known.notes.items():
        print(note)
        run.tags({f"{name}.note": note})
    results = (learnt.chosen, learnt.final) if config.refit else (learnt.chosen,)
    seconds = sum(result.seconds for result in results)
    run.metrics({**scores, "best_epoch": learnt.chosen.best_epoch, "train_seconds": seconds})
    if any(result.halved for result in results):
        run.tags({"train.batches": "halved, since memory did not suffice"})
    beside = _baselines(run, task, parts, held.samples, config.seed) if baselines else {}
    names = {"": "validation", "unseen_": "unseen values"}
    shown = {names[prefix]: (part, predictions[prefix]) for prefix, part in parts.scored.items()}
    log_predictions(run, task, shown, own)
    drawn = task.run_figures(shown, calibration=own, history=learnt.chosen.history, examples=parts.samples)
    for name, figure in drawn.items():
        run.figure(figure, f"figures/{name}.png")
    _bundle(run, settings, config, parts, learnt.final.model, scores, known, calibration)
    return Fitted(run.id, config.network, scores, beside)


def _learn(
    run: Run,
    task: Task,
    config: TrainConfig,
    parts: Parts,
    measured: Measured,
    on_epoch: Callable[[int, dict[str, float]], None] | None,
    checkpoint: Path | None,
    watch: Watch | None,
) -> Learnt:
    """Train with a bar on the terminal and a curve in the run."""
    with Progress(config.epochs, f"train {config.network}", "epoch") as bar:

        def report(epoch: int, entry: dict[str, float]) -> None:
            bar.update(epoch - bar.done, f"validation {task.metric} {entry[f'val_{task.metric}']:.4f}")
            run.metrics({key: value for key, value in entry.items() if key != "epoch"}, epoch)
            if on_epoch is not None:
                on_epoch(epoch, entry)

        def report_refit(epoch: int, entry: dict[str, float]) -> None:
            bar.update(0, f"fitted again with the validation samples: epoch {epoch}")
            run.metrics({"refit_train_loss": entry["train_loss"]}, epoch)

        return learn(
            task, config, parts, measured=measured, on_epoch=report, on_refit=report_refit, checkpoint=checkpoint,
            watch=watch,
        )  # fmt: skip


def fit_baselines(task: Task, train: Samples, held: Samples, seed: int) -> dict[str, tuple[Predictor, dict[str, Any]]]:
    """Fit the task's baselines to ``train`` and calibrate each on ``held``, which is not what they are scored on."""
    return {
        name: (predictor, task.calibrate(predictor(held), held))
        for name, predictor in task.baselines(train, seed).items()
    }


def baseline_scores(task: Task, parts: Parts, held: Samples, seed: int) -> dict[str, dict[str, float]]:
    """Return the scores of every baseline, calibrated on ``held`` as a network is, under the names of a network's."""
    return {
        name: scored(
            task,
            {key: predictor(part) for key, part in parts.scored.items()},
            parts.scored,
            dict.fromkeys(parts.scored, calibration),
        )
        | _robust(task, predictor, parts, calibration)
        for name, (predictor, calibration) in fit_baselines(task, parts.train, held, seed).items()
    }


def _calibrated(task: Task, model: Model, held: Samples) -> dict[str, Any]:
    return task.calibrate(predict(model, held.images), held)


def _robust(task: Task, predictor: Predictor, parts: Parts, calibration: Mapping[str, Any]) -> dict[str, float]:
    found = robust_scores(task, predictor, parts.judged, calibration)
    return {f"{parts.decisive}{key}": value for key, value in found.items()}


def _baselines(run: Run, task: Task, parts: Parts, held: Samples, seed: int) -> dict[str, dict[str, float]]:
    scores = baseline_scores(task, parts, held, seed)
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
