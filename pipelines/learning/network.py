"""The training of a network on a data set: the epoch chosen on validation samples, then fitted again where asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.learning.parts import Parts
from stm_models.data.dataset import stored
from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.plugins import imported
from stm_models.tasks.base import Task
from stm_models.tasks.perturbation import find
from stm_models.training.batches import Batches
from stm_models.training.config import TrainConfig
from stm_models.training.perturbations import copies_of
from stm_models.training.reproducible import select_device
from stm_models.training.trainer import OnEpoch, TrainResult, Watch, refit, train
from tracking.runs import PREFIX, RUN_TAG, RunRow

__all__ = ["CHECKPOINTS", "Learnt", "Measured", "begun_as", "check", "checkpoint_of", "forget", "learn"]

CHECKPOINTS = Path("checkpoints")
"""Where unfinished trainings are kept, in the working directory."""

Array = NDArray[Any]


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
class Learnt:
    """A training's outcome.

    Attributes
    ----------
    chosen : TrainResult
        Of the training samples alone, its epoch chosen on the validation samples.
    final : TrainResult
        What is exported: ``chosen`` itself or, with ``train.refit``, the network fitted to both.
    """

    chosen: TrainResult
    final: TrainResult


def learn(
    task: Task,
    config: TrainConfig,
    parts: Parts,
    *,
    measured: Measured | None = None,
    on_epoch: OnEpoch | None = None,
    on_refit: OnEpoch | None = None,
    checkpoint: Path | None = None,
    watch: Watch | None = None,
) -> Learnt:
    """Train as a task's configuration says; nothing is recorded.

    Parameters
    ----------
    task : Task
    config : TrainConfig
    parts : Parts
        The validation samples choose the epoch.
    measured : Measured, optional
        Maps without labels that the training uses too.
    on_epoch, on_refit : callable, optional
        Called with the epoch (from 1) and its entry of the history: of the training, and of the one that is fitted
        again. What it raises ends the training.
    checkpoint : Path, optional
        Where the training state is kept, to continue after an interruption.
    watch : callable, optional
        Gives further metrics of every epoch's model.

    Raises
    ------
    InputError
        As `stm_models.training.trainer.train`.
    """
    check(task, config, parts)
    perturbation = find(task.perturbations(), config.perturbation)
    measured = measured or Measured()

    def data(fitted: Any) -> dict[str, Any]:
        return {
            "standardise": task.standardise, "steps": perturbation.steps, "unlabelled": measured.images,
            "copies": copies_of(perturbation, fitted, config.seed), "batches": _on_the_fly(task, config, parts),
            "numbers": fitted.coordinates["sample"],
        }  # fmt: skip

    chosen = train(
        config, parts.train.images, parts.train.targets, parts.validation.images, parts.validation.targets,
        validate=lambda prediction: task.validation(prediction, parts.validation, parts.train),
        larger_is_better=task.larger_is_better, on_epoch=on_epoch, checkpoint=checkpoint, watch=watch,
        **data(parts.train),
    )  # fmt: skip
    if not config.refit:
        return Learnt(chosen, chosen)
    both = parts.fitted(refit=True)
    final = refit(
        config, both.images, both.targets, first=chosen, on_epoch=on_refit,
        checkpoint=None if checkpoint is None else _refit_checkpoint(checkpoint), **data(both),
    )  # fmt: skip
    return Learnt(chosen, final)


def check(task: Task, config: TrainConfig, parts: Parts) -> None:
    """Refuse what no training can do, before anything is simulated for its sake.

    Raises
    ------
    InputError
        For a device that is missing, samples drawn on the fly that are fitted again or cannot be drawn, or images that
        the perturbation or the network cannot be made for.
    """
    select_device(config.device)
    if config.refit and config.on_the_fly:
        raise InputError(
            "train.refit is true with train.on_the_fly, which trains on no samples of the data set: choose one"
        )
    _on_the_fly(task, config, parts)
    for name in find(task.perturbations(), config.perturbation).needs:
        stored(parts.train.subset(np.arange(1)), name)
    outputs = parts.train.targets.shape[1] if parts.train.targets.ndim == 2 else 1
    registry.create(config.network, parts.train.images.shape[1:], outputs, config.options, blank=True)


def checkpoint_of(name: str) -> Path:
    """Return where the unfinished training of a run, or of a trial, is kept."""
    return CHECKPOINTS / f"{name}.pt"


def begun_as(row: RunRow) -> str | None:
    """Return the id under which the unfinished training of a run is kept here; ``None`` where nothing is.

    One that began while the store was away is kept under its id of then, ``spool_…``.
    """
    names = (row.id, f"{PREFIX}{row.tags.get(RUN_TAG, '')}")
    return next((name for name in names if checkpoint_of(name).is_file()), None)


def forget(checkpoint: Path) -> None:
    """Delete what an unfinished training kept at ``checkpoint``, and what a killed one was writing."""
    unfinished = checkpoint.parent.glob(f".{checkpoint.stem}.*")
    for path in (checkpoint, _refit_checkpoint(checkpoint), *unfinished):
        path.unlink(missing_ok=True)


def _refit_checkpoint(path: Path) -> Path:
    return path.with_suffix(".refit.pt")


def _on_the_fly(task: Task, config: TrainConfig, parts: Parts) -> Callable[[Any], Batches] | None:
    if not config.on_the_fly:
        return None
    drawn = task.on_the_fly(parts.samples.attributes)
    if drawn is None:
        raise InputError(
            f"train.on_the_fly is true, but task {task.name} cannot draw samples like those of {parts.samples.path}: "
            "leave it out, or give a data set whose samples can be drawn (docs/training.md says which)"
        )
    where, parameters = drawn
    kind = imported(where, Batches, f"what draws samples for task {task.name}, {where}")
    count = -(-config.epoch_samples // config.batch_size)
    return lambda device: kind(parameters, count=count, batch_size=config.batch_size, device=device)
