"""Training of one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.tasks.perturbation import Step
from stm_models.training import checkpoints
from stm_models.training.batches import Batches, StoredBatches
from stm_models.training.config import TrainConfig
from stm_models.training.losses import confidence, loss_function
from stm_models.training.perturbations import perturb
from stm_models.training.predict import predict
from stm_models.training.reproducible import mixed, seeded, select_device, threads
from stm_models.training.schedules import factor
from stm_models.training.unlabelled import UnlabelledTiles

__all__ = ["OnEpoch", "TrainResult", "Validate", "Watch", "predict", "train"]

OnEpoch = Callable[[int, dict[str, float]], None]
Array = NDArray[Any]
Validate = Callable[[Array], tuple[dict[str, float], float]]
Watch = Callable[[Model], Mapping[str, float]]

_SAVE_EVERY = 5.0  # seconds
_CHUNK = 64
_WITHOUT_EFFECT = {"threads", "device"}


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
    """

    model: Model
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


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
        20 epochs, one in memory at a time.
    batches : callable, optional
        Gives, for the device, batches to train on in place of ``images`` and ``targets``; these still stand for
        what the network will see.
    unlabelled : sequence of (C, H, W) float32
        Measured maps of any size. To the loss of every batch comes ``config.confidence_weight`` times how unsure
        the network is of as many random tiles of them.
    watch : callable, optional
        Gives further numbers of every epoch's model for the history, which decide nothing.

    Raises
    ------
    InputError
        For data that do not fit together or hold NaN, a network that answers in another form than the targets', a
        device that is missing, a checkpoint of another run, or a loss that became NaN or infinite.
    """
    _check(images, targets, "training", images, targets)
    _check(validation_images, validation_targets, "validation", images, targets)
    device = select_device(config.device)
    outputs = targets.shape[1] if targets.ndim == 2 else 1
    network = registry.create(config.network, images.shape[1:], outputs, config.options, seed=config.seed)
    first = _distorted(images if copies is None else copies(0), steps, config.seed)
    model = Model.for_data(network, first, targets, standardise=standardise).to(device)
    _check_network(config.network, model, images, targets)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    settings = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    arrays = (images, targets, validation_images, validation_targets)
    state = _resume(checkpoint, settings, arrays, model, optimiser)
    source = (
        StoredBatches(images if copies is None else first, targets, config.batch_size, device, copies)
        if batches is None else batches(device)
    )  # fmt: skip
    tiles = UnlabelledTiles(unlabelled, images.shape[2:], device) if unlabelled else None
    sign = -1.0 if larger_is_better else 1.0
    saved = -np.inf
    with threads(config.threads):
        while not _finished(config, state):
            epoch, start = state.epoch + 1, time.perf_counter()
            train_loss, rate = _run_epoch(config, epoch, model, optimiser, source, steps, tiles)
            prediction = predict(model, validation_images)
            if not np.isfinite(prediction).all():
                raise _diverged(epoch, "the validation set", rate)
            found, score = validate(prediction)
            scores = {f"val_{key}": value for key, value in found.items()}
            watched = {} if watch is None else watch(model)
            entry = {"epoch": epoch, "train_loss": train_loss, "learning_rate": rate, **scores, **watched}
            entry["seconds"] = time.perf_counter() - start
            state.epoch = epoch
            state.history.append(entry)
            if sign * score < state.best_error:
                state.best_epoch, state.best_error, state.best = epoch, sign * score, _copy(model)
            due = _finished(config, state) or time.monotonic() - saved > _SAVE_EVERY
            if due:
                _save(checkpoint, state, model, optimiser)
                saved = time.monotonic()
            try:
                if on_epoch is not None:
                    on_epoch(epoch, dict(entry))
            except BaseException:
                if not due:
                    _save(checkpoint, state, model, optimiser)
                raise
    model.load_state_dict(state.best)
    seconds = sum(entry["seconds"] for entry in state.history)
    return TrainResult(model.cpu().eval(), state.history, state.best_epoch, seconds)


def _distorted(images: Array, steps: Sequence[Step], seed: int) -> Array:
    """Return one distorted copy of the training images: what the network's input is standardised by."""
    if not steps:
        return images
    generator = torch.Generator().manual_seed(mixed(seed, 0, 1))
    parts = (torch.from_numpy(np.array(images[i : i + _CHUNK], np.float32)) for i in range(0, len(images), _CHUNK))
    return np.concatenate([perturb(part, steps, generator).numpy() for part in parts])


def _finished(config: TrainConfig, state: checkpoints.Checkpoint) -> bool:
    return state.epoch >= config.epochs or state.epoch - state.best_epoch >= config.patience


def _resume(
    path: Path | None,
    settings: dict[str, Any],
    arrays: tuple[Array, ...],
    model: Model,
    optimiser: torch.optim.Optimizer,
) -> checkpoints.Checkpoint:
    if path is None:
        return checkpoints.Checkpoint(settings, data=0)
    data = checkpoints.fingerprint(*arrays)
    state = checkpoints.read(path, settings, data)
    if state is None:
        return checkpoints.Checkpoint(settings, data)
    model.load_state_dict(state.last)
    optimiser.load_state_dict(state.optimiser)
    return state


def _run_epoch(
    config: TrainConfig,
    epoch: int,
    model: Model,
    optimiser: torch.optim.Optimizer,
    source: Batches,
    steps: Sequence[Step],
    tiles: UnlabelledTiles | None,
) -> tuple[float, float]:
    loss_of, device = loss_function(config.loss), model.pixel_mean.device
    count = source.count
    losses, weights = [], []
    distorting = torch.Generator(device).manual_seed(mixed(config.seed, epoch, 1))
    tiling = torch.Generator().manual_seed(mixed(config.seed, epoch, 2))
    with seeded(config.seed, epoch, device) as generator:
        model.train()
        for batch, (x, y) in enumerate(source.epoch(epoch, generator)):
            step = (epoch - 1) * count + batch
            rate = config.learning_rate * factor(config.schedule, step, config.epochs * count)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(model.network(model.standardise(perturb(x, steps, distorting))), model.scale_targets(y))
            if tiles is not None:
                guessed = model.network(model.standardise(tiles.draw(len(x), tiling)))
                loss = loss + config.confidence_weight * confidence(guessed)
            loss.backward()
            if config.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimiser.step()
            losses.append(loss.detach())
            weights.append(len(x))
    # One transfer per epoch: asking every batch would make a GPU wait.
    values = torch.stack(losses).double().cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise _diverged(epoch, f"batch {bad[0] + 1} of {count}", rate)
    return float(np.average(values, weights=weights)), rate


def _save(path: Path | None, state: checkpoints.Checkpoint, model: Model, optimiser: torch.optim.Optimizer) -> None:
    if path is not None:
        state.last, state.optimiser = model.state_dict(), optimiser.state_dict()
        checkpoints.write(path, state)


def _copy(model: Model) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _check_network(name: str, model: Model, images: Array, targets: Array) -> None:
    shape = predict(model, images[:1]).shape
    if len(shape) != targets.ndim:
        kinds = {2: "numbers", 4: "maps"}
        raise InputError(
            f"network {name!r} answers with {kinds.get(len(shape), shape)}, the targets are {kinds[targets.ndim]}: "
            "choose another with --model or train.network"
        )


def _check(images: Array, targets: Array, what: str, like_images: Array, like_targets: Array) -> None:
    if images.ndim != 4 or targets.ndim not in (2, 4) or len(images) != len(targets) or len(images) == 0:
        raise InputError(
            f"{what} data have shapes {images.shape} and {targets.shape}: expected images (samples, "
            "channels, height, width) and as many targets (samples, targets) or (samples, targets, height, width), "
            "at least 1"
        )
    if images.shape[1:] != like_images.shape[1:] or targets.shape[1:] != like_targets.shape[1:]:
        raise InputError(
            f"{what} data have shapes {images.shape} and {targets.shape}: expected those of the training "
            f"data, {like_images.shape} and {like_targets.shape}, but for the number of samples"
        )
    for name, values in (("images", images), ("targets", targets)):
        if not np.isfinite(values).all():
            raise InputError(f"the {what} {name} hold NaN or infinity: leave those samples out")


def _diverged(epoch: int, where: str, rate: float) -> InputError:
    return InputError(
        f"the loss became NaN or infinite in epoch {epoch}, {where}, at learning rate {rate:.3g}: "
        "lower train.learning_rate, or check the data for outliers"
    )
