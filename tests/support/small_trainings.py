"""Trainings that take a moment, and what their tests compare and interrupt."""

import numpy as np
import torch

from stm_models.data.dataset import Samples
from stm_models.tasks import registry
from stm_models.training import trainer
from stm_models.training.config import TrainConfig

TINY = {"hidden": [8], "pool": 1, "dropout": 0.1}
SMALL = {"hidden": [32], "pool": 1, "dropout": 0.1}


def tiny_config(**changes):
    """Four epochs of a network of 8 units."""
    options = changes.pop("options", TINY)
    given = {"epochs": 4, "batch_size": 8, "device": "cpu", "threads": 1, "learning_rate": 1e-2}
    return TrainConfig(options=options, **(given | changes))


def small_config(**changes):
    """Six epochs of a network of 32 units."""
    return TrainConfig(options=SMALL, epochs=6, device="cpu", threads=1, **changes)


def train(config, data, **more):
    """Train; validate by the mean absolute error."""

    def validate(prediction):
        error = float(np.abs(prediction - data[3]).mean())
        return {"mae": error}, error

    return trainer.train(config, *data, validate=validate, **more)


def train_as_hubbard(config, images, targets, validation_images, validation_targets, *, names=("U",), **more):
    """Train as the task hubbard does."""
    about = {"targets": [{"name": name, "unit": "eV"} for name in names]}
    trained = Samples(images, targets, {}, about, None)
    held = Samples(validation_images, validation_targets, {}, about, None)

    def validate(prediction):
        return registry.get("hubbard").validation(prediction, held, trained)

    data = (images, targets, validation_images, validation_targets)
    return trainer.train(config, *data, validate=validate, **more)


def weights(result):
    """The weights of a finished training by name."""
    return result.model.state_dict()


def same(first, second):
    """Whether two sets of weights are bitwise equal."""
    return all(torch.equal(value, second[key]) for key, value in first.items())


class Interrupt(Exception):
    """Ends a training after an epoch."""


def interrupt_at(last):
    """An `on_epoch` that interrupts after epoch ``last``."""

    def on_epoch(epoch, entry):
        if epoch == last:
            raise Interrupt

    return on_epoch


class Killed(BaseException):
    """Ends a training anywhere, and no `except Exception` stops it."""
