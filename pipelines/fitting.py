"""Training one network on a data set as one recorded run: what train, tune and demo share."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.settings import Settings, SplitConfig
from stm_models import figures
from stm_models.data.dataset import Samples, load
from stm_models.data.splits import Split, split
from stm_models.errors import InputError
from stm_models.networks import bundle
from stm_models.progress import Progress
from stm_models.regression.baselines import fit_baselines
from stm_models.regression.metrics import metrics
from stm_models.tasks.base import Task
from stm_models.tasks.perturbation import CLEAN, Perturbation, find
from stm_models.training.config import TrainConfig
from stm_models.training.novelty import Novelty
from stm_models.training.perturbations import copies_of, perturbed
from stm_models.training.trainer import TrainResult, predict, train
from tracking import datasets
from tracking.runs import Run

__all__ = ["Fitted", "Parts", "fit", "load_parts", "recipe", "score", "split_samples"]

Predictor = Callable[[np.ndarray], np.ndarray]


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
    samples = load(path, verify=True, include_unconverged=config.include_unconverged, targets=targets)
    if samples.attributes["task"] != task.name:
        raise InputError(
            f"{path} is a data set of task {samples.attributes['task']!r}, expected {task.name!r}: "
            "give the task's own data set with --data"
        )
    chosen = split_samples(samples, task, config)
    return Parts(samples, *(samples.subset(rows) for rows in (chosen.train, chosen.validation, chosen.unseen)))


def split_samples(samples: Samples, task: Task, config: SplitConfig) -> Split:
    """Split by simulated state, stratified over the task's target, some of its values held out."""
    return split(
        samples.coordinates["group"], samples.coordinates[task.stratify],
        unseen_fraction=config.unseen_fraction, validation_fraction=config.validation_fraction, seed=config.seed,
    )  # fmt: skip


def recipe(settings: Settings, config: TrainConfig, parts: Parts) -> str:
    """Identify a training before it is done: task, data, split and training parameters."""
    about = {
        "task": settings.task.name,
        "data": parts.samples.attributes["digest"],
        "split": settings.split.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude={"threads", "device"}),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def score(predictor: Predictor, parts: Parts) -> dict[str, float]:
    """Metrics on the validation states (plain names) and on unseen values (``unseen_`` before them)."""
    names = [target["name"] for target in parts.samples.attributes["targets"]]
    return {
        f"{prefix}{key}": value
        for prefix, part in parts.scored.items()
        for key, value in metrics(predictor(part.images), part.targets, names).items()
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

    Raises
    ------
    InputError
        As `stm_models.training.trainer.train`.
    """
    attributes = parts.samples.attributes
    run.config({**settings.record("split"), "train": config.model_dump(mode="json")})
    run.tags(
        {
            "task": settings.task.name,
            "network": config.network,
            "data.path": str(parts.samples.path.absolute()),
            "training.recipe": recipe(settings, config, parts),
        }
    )
    perturbation = find(settings.task.perturbations(), config.perturbation)
    run.json(perturbation.record(), "perturbation.json")
    datasets.log(run, {**attributes, "samples": len(parts.samples)}, parts.samples.path)
    run.environment({"train": config.seed, "split": settings.split.seed})
    run.json(attributes, "data.json")

    with Progress(config.epochs, f"train {config.network}", "epoch") as bar:

        def report(epoch: int, entry: dict[str, float]) -> None:
            bar.update(epoch - bar.done, f"validation MAE {entry['val_mae']:.4f}")
            run.metrics({key: value for key, value in entry.items() if key != "epoch"}, epoch)
            if on_epoch is not None:
                on_epoch(epoch, entry)

        result = train(
            config, parts.train.images, parts.train.targets, parts.validation.images, parts.validation.targets,
            on_epoch=report, checkpoint=checkpoint, names=[target["name"] for target in attributes["targets"]],
            steps=perturbation.steps, copies=copies_of(perturbation, parts.train, config.seed),
        )  # fmt: skip
    scores = score(lambda images: predict(result.model, images), parts)
    run.metrics({**scores, "best_epoch": result.best_epoch, "train_seconds": result.seconds})
    beside = _baselines(run, settings.task, parts, config.seed) if baselines else {}
    _figures(run, settings.task, parts, result)
    _bundle(run, settings, config, parts, result, scores, perturbation)
    return Fitted(run.id, config.network, scores, beside)


def _baselines(run: Run, task: Task, parts: Parts, seed: int) -> dict[str, dict[str, float]]:
    fitted = fit_baselines(
        task.baselines, parts.train.images, parts.train.targets, parts.train.coordinates["group"], seed
    )
    scores = {name: score(predictor, parts) for name, predictor in fitted.items()}
    run.metrics({f"{name}.{key}": value for name, found in scores.items() for key, value in found.items()})
    return scores


def _figures(run: Run, task: Task, parts: Parts, result: TrainResult) -> None:
    predicted = {prefix: predict(result.model, part.images) for prefix, part in parts.scored.items()}
    for column, target in enumerate(parts.samples.attributes["targets"]):
        about = {"label": target["name"], "unit": target["unit"]}
        sets = {
            {"": "validation", "unseen_": "unseen values"}[prefix]: (
                part.targets[:, column], predicted[prefix][:, column],
            )
            for prefix, part in parts.scored.items()
        }  # fmt: skip
        suffix = f"_{target['name']}" if column else ""
        run.figure(figures.parity(sets, **about), f"figures/parity{suffix}.png")
        run.figure(figures.residuals(sets, **about), f"figures/residuals{suffix}.png")
    target = parts.samples.attributes["targets"][0]
    about = {"label": target["name"], "unit": target["unit"]}
    run.figure(figures.learning_curve(result.history, unit=target["unit"]), "figures/learning_curve.png")
    run.figure(
        figures.examples(
            parts.samples.images,
            parts.samples.targets[:, 0],
            image_unit=parts.samples.attributes["input"]["unit"],
            axes=task.axes(parts.samples.attributes["input"]),
            **about,
        ),
        "figures/examples.png",
    )


def _bundle(
    run: Run,
    settings: Settings,
    config: TrainConfig,
    parts: Parts,
    result: TrainResult,
    scores: Mapping[str, float],
    perturbation: Perturbation,
) -> None:
    # A model trained on perturbed images knows such images: the distance is to what it was trained on.
    known, held_out = (
        part.images if perturbation == CLEAN else perturbed(perturbation, part, config.seed)
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
        "metrics": dict(scores), "distance": {"quantiles": quantiles},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = bundle.save(Path(folder) / "bundle", result.model, novelty, json.loads(json.dumps(info)))
        run.artifact(path, "bundle")
