"""Training of one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stm_models import heap
from stm_models.errors import InputError, TrainingFailed
from stm_models.networks.model import Model
from stm_models.tasks.perturbation import Step
from stm_models.training import checkpoints, distributed
from stm_models.training.batches import Batches
from stm_models.training.checkpoints import Checkpoint, Keeper
from stm_models.training.config import TrainConfig
from stm_models.training.epochs import diverged, run_epoch
from stm_models.training.learner import Learner, check_data, create_learner
from stm_models.training.memory import exhausted, is_exhausted
from stm_models.training.optimisation import compiling
from stm_models.training.predict import predict
from stm_models.training.reproducible import deterministic, select_device, threads

__all__ = ["OnEpoch", "TrainResult", "Validate", "Watch", "predict", "refit", "train"]

OnEpoch = Callable[[int, dict[str, float]], None]
Array = NDArray[Any]
Validate = Callable[[Array], tuple[dict[str, float], float]]
Watch = Callable[[Model], Mapping[str, float]]

_WITHOUT_EFFECT = {"threads", "device", "refit"}


@dataclass(frozen=True)
class TrainResult:
    """A trained model and how it came about.

    Attributes
    ----------
    model : Model
        With the weights of the best epoch, on the CPU, in eval mode.
    history : list of dict
        Per epoch: epoch, train_loss, learning_rate, the validation's scores with ``val_`` before them, seconds.
    best_epoch : int
        Counted from 1.
    seconds : float
        Time spent in epochs, earlier interrupted calls included.
    errors : list of float
        Validation error of each epoch, as it chose the best one.
    halved : bool
        Whether memory did not suffice for the batches asked for.
    """

    model: Model
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    errors: list[float]
    halved: bool


def train(
    config: TrainConfig,
    images: Array,
    targets: Array,
    validation_images: Array,
    validation_targets: Array,
    *,
    validate: Validate,
    larger_is_better: bool = False,
    standardise: bool = True,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    steps: Sequence[Step] = (),
    copies: Callable[[int], Array] | None = None,
    batches: Callable[[torch.device], Batches] | None = None,
    unlabelled: Sequence[Array] = (),
    watch: Watch | None = None,
    numbers: NDArray[np.int64] | None = None,
) -> TrainResult:
    """Train until the validation score stops improving.

    Parameters
    ----------
    config : TrainConfig
    images, validation_images : (S, C, H, W) float32
    targets, validation_targets : (S, T) float64, or (S, T, H, W) float32 for a network that answers with maps
    validate : callable
        Gives, for the predictions of the validation images, their scores for the history, and the one of them or
        made of them that chooses the best epoch.
    larger_is_better : bool
        Direction of that score.
    standardise : bool
        Whether images are standardised per pixel and targets scaled, by the training data.
    on_epoch : callable, optional
        Called with the epoch (from 1) and its entry of the history; what it raises ends the training and
        reaches the caller, with that epoch kept in the checkpoint.
    checkpoint : Path, optional
        File that keeps the state, at most a few seconds old; where it exists the run continues from it, and
        on the CPU ends with bitwise the same weights as without the interruption.
    steps : sequence of Step, optional
        Distortions of every batch of training images, on the device.
    copies : callable, optional
        Gives, for a number, another perturbed copy (S, C, H, W) of the training images; the next one every
        epoch, one in memory at a time.
    batches : callable, optional
        Gives, for the device, batches to train on in place of ``images`` and ``targets``; these still stand for
        what the network will see.
    unlabelled : sequence of (C, H, W) float32
        Measured maps of any size. To the loss of every batch comes ``config.confidence_weight`` times how unsure
        the network is of as many random tiles of them.
    watch : callable, optional
        Gives further numbers of every epoch's model for the history, which decide nothing.
    numbers : (S,) int, optional
        Numbers of the training samples in their data set, to name those of a bad batch.

    Raises
    ------
    InputError
        For data that do not fit together or hold NaN, a network that answers in another form than the targets', a
        device that is missing, a checkpoint of another run, a loss that became NaN or infinite, memory that does not
        suffice for half of the batches either, or a batch of one sample that the network normalises over.

    Notes
    -----
    In processes started by torchrun (see `stm_models.training.distributed`) every one gives the same arguments;
    rank 0 alone calls ``validate``, ``watch`` and ``on_epoch`` and writes the checkpoint.
    """
    check_data(images, targets, "training", images, targets)
    check_data(validation_images, validation_targets, "validation", images, targets)
    sign = -1.0 if larger_is_better else 1.0

    def assess(model: Model, entry: dict[str, float]) -> float:
        prediction = predict(model, validation_images)
        if not np.isfinite(prediction).all():
            raise diverged(int(entry["epoch"]), "the validation set", entry["learning_rate"])
        found, score = validate(prediction)
        # A task may give numpy's numbers, which a checkpoint does not take.
        entry |= {f"val_{key}": float(value) for key, value in found.items()}
        entry |= {} if watch is None else {key: float(value) for key, value in watch(model).items()}
        return sign * float(score)

    with _conditions(config) as device:
        learner = create_learner(
            config, images, targets, device, standardise=standardise, steps=steps, copies=copies, batches=batches,
            unlabelled=unlabelled, numbers=numbers,
        )  # fmt: skip
        keeper = _keeper(checkpoint, learner)
        settings = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        state = _resume(checkpoint, settings, (images, targets, validation_images, validation_targets), keeper)
        while not _finished(config, state):
            _advance(learner, state, keeper, assess, on_epoch, lambda: _finished(config, state))
    return _result(learner, state)


def refit(
    config: TrainConfig,
    images: Array,
    targets: Array,
    *,
    first: TrainResult,
    standardise: bool = True,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    steps: Sequence[Step] = (),
    copies: Callable[[int], Array] | None = None,
    batches: Callable[[torch.device], Batches] | None = None,
    unlabelled: Sequence[Array] = (),
    numbers: NDArray[np.int64] | None = None,
) -> TrainResult:
    """Train anew on training and validation samples together, for as many epochs as were best in ``first``.

    Learning rates follow the same schedule, also where the errors of ``first`` decided them.

    Parameters
    ----------
    images : (S, C, H, W) float32
    targets : (S, T) float64, or (S, T, H, W) float32
        Of training and validation samples.
    first : TrainResult
        From `train` with the same ``config``; the other parameters are as there.

    Raises
    ------
    InputError
        As `train`.
    """
    check_data(images, targets, "training", images, targets)
    with _conditions(config) as device:
        learner = create_learner(
            config, images, targets, device, standardise=standardise, steps=steps, copies=copies, batches=batches,
            unlabelled=unlabelled, numbers=numbers,
        )  # fmt: skip
        keeper = _keeper(checkpoint, learner)
        settings = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT) | {"best_epoch": first.best_epoch}
        state = _resume(checkpoint, settings, (images, targets), keeper)
        while state.epoch < first.best_epoch:
            state.errors = first.errors[: state.epoch]
            _advance(learner, state, keeper, None, on_epoch, lambda: state.epoch == first.best_epoch)
    return _result(learner, state)


@contextmanager
def _conditions(config: TrainConfig) -> Iterator[torch.device]:
    """Set what a training needs of the process; tell failures of the machine from errors."""
    device = select_device(config.device)
    with threads(config.threads), deterministic(config.deterministic), heap.kept():
        try:
            yield device
        except (RuntimeError, MemoryError) as error:
            if is_exhausted(error):
                raise exhausted("while training", device) from error
            if distributed.lost(error):
                raise InputError(
                    "another process of this training ended: its own message tells why; start all again, with "
                    "--resume to go on from the last checkpoint"
                ) from error
            said = compiling(error) if isinstance(error, RuntimeError) and config.compile else None
            if said is None:
                raise
            raise said from error
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            raise TrainingFailed(
                f"train.batch_size is {config.batch_size}, and a batch held a single sample, over which network "
                f"{config.network!r} cannot normalise: expected 2 samples or more in every batch and half batch, so "
                "give a larger one, or another network"
            ) from error


def _advance(
    learner: Learner,
    state: Checkpoint,
    keeper: Keeper,
    assess: Callable[[Model, dict[str, float]], float] | None,
    on_epoch: OnEpoch | None,
    finished: Callable[[], bool],
) -> None:
    """Train one epoch, assess the model, keep what is to be kept and tell."""
    world, start, before = learner.world, time.perf_counter(), state.seconds
    train_loss, rate = run_epoch(learner, state, keeper)
    entry = {"epoch": state.epoch + 1, "train_loss": train_loss, "learning_rate": rate}
    error = assess(learner.shown, entry) if assess is not None and world.rank == 0 else -np.inf
    entry["seconds"] = before + time.perf_counter() - start
    entry, error = world.share((entry, error))
    state.epoch, state.seconds = state.epoch + 1, 0.0
    state.history.append(entry)
    if assess is not None:
        state.errors.append(error)
    if assess is None or error < state.best_error:
        state.best_epoch, state.best_error, state.best = state.epoch, error, _copy(learner.shown)
    due = finished() or keeper.fresh or keeper.due()
    if due:
        keeper.write(state)
    try:
        if on_epoch is not None and world.rank == 0:
            on_epoch(state.epoch, dict(entry))
    except BaseException:
        if not due:
            keeper.write(state)
        raise


def _result(learner: Learner, state: Checkpoint) -> TrainResult:
    model = learner.model
    model.load_state_dict(state.best)
    model = model.cpu().to(memory_format=torch.contiguous_format).eval()
    seconds = sum(entry["seconds"] for entry in state.history)
    return TrainResult(model, state.history, state.best_epoch, seconds, state.errors, state.pieces > 1)


def _finished(config: TrainConfig, state: Checkpoint) -> bool:
    return state.epoch >= config.epochs or state.epoch - state.best_epoch >= config.patience


def _keeper(path: Path | None, learner: Learner) -> Keeper:
    own = path if learner.world.rank == 0 else None
    return Keeper(own, learner.model, learner.optimiser, learner.average)


def _resume(path: Path | None, settings: dict[str, Any], arrays: tuple[Array, ...], keeper: Keeper) -> Checkpoint:
    """Return the state to go on from: the checkpoint's, of which rank 0 tells the others."""
    world = distributed.current()
    state = None
    if path is not None and world.rank == 0:
        data = checkpoints.fingerprint(*arrays)
        state = checkpoints.read(path, settings, data) or Checkpoint(settings, data)
    state = world.share(state) or Checkpoint(settings, data=0)
    if state.last:
        keeper.restore(state)
    return state


def _copy(model: Model) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
