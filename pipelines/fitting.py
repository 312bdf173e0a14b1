"""Training one network on a data set as one recorded run: what train, tune and demo share."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.settings import Settings, SplitConfig
from stm_models.data.dataset import Samples, load
from stm_models.data.splits import Split, split
from stm_models.errors import InputError
from stm_models.networks import bundle
from stm_models.progress import Progress
from stm_models.tasks.base import Predictor, Task
from stm_models.tasks.perturbation import CLEAN, Perturbation, find
from stm_models.training.batches import Batches
from stm_models.training.config import TrainConfig
from stm_models.training.novelty import Novelty
from stm_models.training.perturbations import copies_of, perturbed
from stm_models.training.predict import describe, predict
from stm_models.training.trainer import TrainResult, Watch, train
from tracking import datasets
from tracking.runs import Run

__all__ = ["Fitted", "Measured", "Parts", "fit", "fit_baselines", "load_parts", "recipe", "scored", "split_samples"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Parts:
    """A data set and its split."""

    samples: Samples
    train: Samples
    validation: Samples
    unseen: Samples

    @property
    def scored(self) -> dict[str, Samples]:
        """The sets that are scored, by the prefix of their metrics."""
        sets = {"": self.validation, "unseen_": self.unseen}
        return {prefix: part for prefix, part in sets.items() if len(part)}


@dataclass(frozen=True)
class Measured:
    """Measured maps without labels that take part in a training.

    Attributes
    ----------
    images : tuple of (C, H, W) float32
        Prepared as those that a model is asked about.
    digests : mapping of str to str
        SHA-256 (hex) of each file, by its name.
    """

    images: tuple[Array, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """A recorded training: where, and how well on the validation states and on unseen values."""

    run_id: str
    network: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


def load_parts(path: str | Path, task: Task, config: SplitConfig, targets: Sequence[str] | None = None) -> Parts:
    """Read a data set of ``task`` with some of its labels as ``targets`` and split it by group.

    Raises
    ------
    InputError
        For a data set that cannot be read, of another task, without such targets, or too small to split.
    """
    samples = load(
        path, verify=True, include_unconverged=config.include_unconverged, targets=targets, arrays=task.arrays
    )
    if samples.attributes["task"] != task.name:
        raise InputError(
            f"{path} is a data set of task {samples.attributes['task']!r}, expected {task.name!r}: "
            "give the task's own data set with --data"
        )
    chosen = split_samples(samples, task, config)
    return Parts(samples, *(samples.subset(rows) for rows in (chosen.train, chosen.validation, chosen.unseen)))


def split_samples(samples: Samples, task: Task, config: SplitConfig) -> Split:
    """Split by simulated state, stratified as the task says, some values held out where it has unseen ones."""
    return split(
        samples.coordinates["group"], samples.coordinates[task.stratify],
        unseen_fraction=config.unseen_fraction if task.unseen else 0,
        validation_fraction=config.validation_fraction, seed=config.seed,
    )  # fmt: skip


def recipe(settings: Settings, config: TrainConfig, parts: Parts, measured: Measured | None = None) -> str:
    """Identify a training before it is done: task, data, split, training parameters and measured maps."""
    about = {
        "task": settings.task.name,
        "data": parts.samples.attributes["digest"],
        "split": settings.split.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude={"threads", "device"}),
    }
    if measured is not None and measured.images:
        about["measured"] = sorted(measured.digests.values())
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def scored(
    task: Task, predictions: Mapping[str, Array], sets: Mapping[str, Samples], calibration: Mapping[str, Any]
) -> dict[str, float]:
    """Metrics of predictions for sets of samples, each set's with its name before them."""
    return {
        f"{prefix}{key}": value
        for prefix, part in sets.items()
        for key, value in task.metrics(predictions[prefix], part, calibration).items()
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
    run.config({**settings.record("split"), "train": config.model_dump(mode="json")})
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

    with Progress(config.epochs, f"train {config.network}", "epoch") as bar:

        def report(epoch: int, entry: dict[str, float]) -> None:
            bar.update(epoch - bar.done, f"validation {task.metric} {entry[f'val_{task.metric}']:.4f}")
            run.metrics({key: value for key, value in entry.items() if key != "epoch"}, epoch)
            if on_epoch is not None:
                on_epoch(epoch, entry)

        result = train(
            config, parts.train.images, parts.train.targets, parts.validation.images, parts.validation.targets,
            validate=lambda prediction: task.validation(prediction, parts.validation, parts.train),
            larger_is_better=task.larger_is_better, standardise=task.standardise,
            on_epoch=report, checkpoint=checkpoint,
            steps=perturbation.steps, copies=copies_of(perturbation, parts.train, config.seed),
            batches=_on_the_fly(task, config, parts), unlabelled=measured.images, watch=watch,
        )  # fmt: skip
    predictions = {prefix: predict(result.model, part.images) for prefix, part in parts.scored.items()}
    calibration = task.calibrate(predictions[""], parts.validation)
    scores = scored(task, predictions, parts.scored, calibration)
    run.metrics({**scores, "best_epoch": result.best_epoch, "train_seconds": result.seconds})
    beside = _baselines(run, task, parts, config.seed) if baselines else {}
    names = {"": "validation", "unseen_": "unseen values"}
    drawn = task.run_figures(
        {names[prefix]: (part, predictions[prefix]) for prefix, part in parts.scored.items()},
        calibration=calibration, history=result.history, examples=parts.samples,
    )  # fmt: skip
    for name, figure in drawn.items():
        run.figure(figure, f"figures/{name}.png")
    _bundle(run, settings, config, parts, result, scores, perturbation, calibration)
    return Fitted(run.id, config.network, scores, beside)


def fit_baselines(task: Task, parts: Parts, seed: int) -> dict[str, tuple[Predictor, dict[str, Any]]]:
    """Fit the task's baselines and calibrate each on the validation samples, as a network is."""
    return {
        name: (predictor, task.calibrate(predictor(parts.validation), parts.validation))
        for name, predictor in task.baselines(parts.train, seed).items()
    }


def _baselines(run: Run, task: Task, parts: Parts, seed: int) -> dict[str, dict[str, float]]:
    scores = {
        name: scored(task, {key: predictor(part) for key, part in parts.scored.items()}, parts.scored, calibration)
        for name, (predictor, calibration) in fit_baselines(task, parts, seed).items()
    }
    run.metrics({f"{name}.{key}": value for name, found in scores.items() for key, value in found.items()})
    return scores


def _on_the_fly(task: Task, config: TrainConfig, parts: Parts) -> Callable[[Any], Batches] | None:
    if not config.on_the_fly:
        return None
    drawn = task.on_the_fly(parts.samples.attributes)
    if drawn is None:
        raise InputError(
            f"train.on_the_fly is true, but task {task.name} cannot draw samples like those of {parts.samples.path}: "
            "leave it out, or give a data set of another generator"
        )
    from stm_models.training.synthetic import SyntheticBatches

    count = -(-config.epoch_samples // config.batch_size)
    return lambda device: SyntheticBatches(
        drawn, count=count, batch_size=config.batch_size, seed=config.seed, device=device
    )


def _bundle(
    run: Run,
    settings: Settings,
    config: TrainConfig,
    parts: Parts,
    result: TrainResult,
    scores: Mapping[str, float],
    perturbation: Perturbation,
    calibration: Mapping[str, Any],
) -> None:
    # A model trained on perturbed images knows such images: the distance is to what it was trained on.
    known, held_out = (
        describe(result.model, part.images if perturbation == CLEAN else perturbed(perturbation, part, config.seed))
        for part in (parts.train, parts.validation)
    )
    novelty, quantiles = Novelty.fit(known, held_out, config.seed)
    attributes = parts.samples.attributes
    info = {
        "task": settings.task.name, "network": config.network, "options": config.options,
        "input": attributes["input"], "targets": attributes["targets"], "explained": 0,
        "data": {
            "recipe": attributes["recipe"], "digest": attributes["digest"], "perturbation": perturbation.name,
        },
        "metrics": dict(scores), "distance": {"quantiles": quantiles}, "calibration": dict(calibration),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = bundle.save(Path(folder) / "bundle", result.model, novelty, json.loads(json.dumps(info)))
        run.artifact(path, "bundle")
