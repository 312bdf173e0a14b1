"""What a training consists of: a network with its data, loss and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.tasks.perturbation import Step
from stm_models.training import distributed
from stm_models.training.averaging import Average
from stm_models.training.batches import Batches, MeasuredBatches, StoredBatches
from stm_models.training.config import TrainConfig
from stm_models.training.distributed import World
from stm_models.training.losses import loss_function
from stm_models.training.optimisation import applied, create_optimiser
from stm_models.training.perturbations import distorted
from stm_models.training.predict import predict
from stm_models.training.reproducible import mixed
from stm_models.training.unlabelled import UnlabelledTiles

__all__ = ["Learner", "check_data", "create_learner"]

Array = NDArray[Any]


@dataclass
class Learner:
    """A model, what it learns from and what moves it.

    Attributes
    ----------
    prepare, forward : callable
        What is done to a batch first, and the network as it is applied to that while training.
    average : Average or None
    steps : sequence of Step
        Distortions of every batch.
    numbers : (S,) int or None
        Numbers of the training samples in their data set, for messages.
    """

    config: TrainConfig
    model: Model
    prepare: Callable[[Tensor], Tensor]
    forward: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimiser: torch.optim.Optimizer
    average: Average | None
    source: Batches
    steps: Sequence[Step]
    tiles: UnlabelledTiles | None
    world: World
    numbers: NDArray[np.int64] | None = None

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.model.pixel_mean.device

    @property
    def shown(self) -> Model:
        """The model that is validated and kept."""
        return self.model if self.average is None else self.average.model


def create_learner(
    config: TrainConfig,
    images: Array,
    targets: Array,
    device: torch.device,
    *,
    standardise: bool,
    steps: Sequence[Step],
    copies: Callable[[int], Array] | None,
    batches: Callable[[torch.device], Batches] | None,
    unlabelled: Sequence[Array],
    numbers: NDArray[np.int64] | None,
) -> Learner:
    """Build the network, standardised by the training data, and everything that its training needs on ``device``.

    Parameters
    ----------
    config : TrainConfig
    images : (S, C, H, W) float32
    targets : (S, T) float64, or (S, T, H, W) float32
        Training data that `check_data` has let pass.
    device : torch.device
        Where the network and its batches are kept.
    standardise, steps, copies, batches, unlabelled, numbers
        See `stm_models.training.trainer.train`.

    Returns
    -------
    Learner

    Raises
    ------
    InputError
        For a network that is unknown, cannot be built as asked or answers in another form than the targets', an unknown
        loss, repeats of images that are not the data set's, measured maps that are smaller than the images or not
        finite, or a device that cannot compute in bfloat16 where that is asked for.
    """
    outputs = targets.shape[1] if targets.ndim == 2 else 1
    network = registry.create(config.network, images.shape[1:], outputs, config.options, seed=config.seed)
    shown = images if copies is None else copies(0)
    first, further = _distorted(shown, steps, config.seed, 0), _further(images, steps, copies, config.seed)
    model = Model.for_data(network, first, targets, standardise=standardise, simulated=images, further=further)
    model = model.to(device)
    _check_network(config.network, model, images, targets)
    repeated = config.repeats > 1
    if repeated and (batches is not None or unlabelled):
        raise InputError(
            f"train.repeats is {config.repeats}, which goes with labelled samples of the data set alone: set it to 1, "
            "or leave out train.on_the_fly and measured maps"
        )
    source: Batches
    if repeated:
        source = MeasuredBatches(
            shown, targets, config.batch_size, device, copies, model=model, steps=steps, repeats=config.repeats,
            seed=config.seed,
        )  # fmt: skip
    elif batches is None:
        source = StoredBatches(shown, targets, config.batch_size, device, copies)
    else:
        source = batches(device)
    return Learner(
        config, model, prepare=(lambda x: x) if repeated else model.standardise,
        forward=applied(config, model, measured=repeated), loss=loss_function(config.loss),
        optimiser=create_optimiser(config, model), average=Average(model, config.ema) if config.ema else None,
        source=source, steps=() if repeated else steps,
        tiles=UnlabelledTiles(unlabelled, images.shape[2:], device) if unlabelled else None,
        world=distributed.current(), numbers=numbers,
    )  # fmt: skip


def _further(images: Array, steps: Sequence[Step], copies: Callable[[int], Array] | None, seed: int) -> Iterator[Array]:
    """Yield other perturbed copies of the training images than the first, without end where there are any."""
    for number in count(1) if steps or copies is not None else ():
        yield _distorted(images if copies is None else copies(number), steps, seed, number)


def _distorted(images: Array, steps: Sequence[Step], seed: int, number: int) -> Array:
    """Return one distorted copy of the training images: the first is what the network's input is standardised by."""
    return distorted(images, steps, mixed(seed, number, 1)) if steps else images


def _check_network(name: str, model: Model, images: Array, targets: Array) -> None:
    shape = predict(model, images[:1]).shape
    if len(shape) != targets.ndim:
        kinds = {2: "numbers", 4: "maps"}
        raise InputError(
            f"network {name!r} answers with {kinds.get(len(shape), shape)}, the targets are {kinds[targets.ndim]}: "
            "choose another with --model or train.network"
        )


def check_data(images: Array, targets: Array, what: str, like_images: Array, like_targets: Array) -> None:
    """Make sure that images and targets fit together and to those of the training.

    Parameters
    ----------
    images : (S, C, H, W) floating
    targets : (S, T) or (S, T, H, W) floating
    what : str
        What messages call them, e.g. ``validation``.
    like_images, like_targets : array
        Those of the training; shapes must be theirs but for the number of samples.

    Raises
    ------
    InputError
        When they do not fit, there are none, or they hold NaN or infinity.
    """
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
