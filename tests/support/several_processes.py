"""What each process of the test of several processes does; also run alone, as the reference."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from stm_models.errors import InputError
from stm_models.tasks.perturbation import Step
from stm_models.training import trainer
from stm_models.training.config import TrainConfig
from stm_models.training.distributed import joined

EPOCHS = 4


def numbers():
    """A regression whose last batches are uneven, with distortions, averaging, clipping and a plateau."""
    rng = np.random.default_rng(0)
    strength = rng.uniform(0, 6, (53, 1))
    images = (strength[..., None, None] * rng.normal(size=(1, 5, 4)) + rng.normal(size=(53, 1, 5, 4))).astype(
        np.float32
    )
    config = TrainConfig(
        options={"hidden": [8], "pool": 1, "dropout": 0}, epochs=EPOCHS, batch_size=9, device="cpu", threads=1,
        learning_rate=1e-2, schedule="plateau", decay_epochs=1, patience=9, ema=0.9, clip_norm=0.1,
    )  # fmt: skip
    steps = (Step("gaussian", 0.5, {"sigma": (0.1, 0.5)}),)
    return config, (images[:41], strength[:41], images[41:], strength[41:]), {"steps": steps}


def maps():
    """Maps of rare places: the loss divides by how many a whole batch has; and maps without labels."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(14, 2, 16, 16)).astype(np.float32)
    pixel = (rng.random((14, 16, 16)) < 0.01 * np.arange(14)[:, None, None]).astype(np.float32)
    images[:, 0] += 3 * pixel
    targets = np.stack([pixel, pixel], axis=1)
    config = TrainConfig(
        network="fieldnet", options={"width": 4, "dilations": "1-1"}, loss="focal_heat", epochs=EPOCHS, batch_size=4,
        device="cpu", threads=1, learning_rate=1e-2, confidence_weight=0.1,
    )  # fmt: skip
    more = {"standardise": False, "unlabelled": [images[0], images[1]]}
    return config, (images[:10], targets[:10], images[10:], targets[10:]), more


def curve(config, data, more, **also):
    """Train; the history without the times."""

    def validate(prediction):
        error = float(np.abs(prediction - data[3][:, :1]).mean())
        return {"mae": error}, error

    history = trainer.train(config, *data, validate=validate, **more, **also).history
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    with joined("cpu") as world:
        told = []
        found = {
            case.__name__: curve(
                *case(), on_epoch=lambda epoch, entry: told.append(epoch), checkpoint=out / f"{case.__name__}.pt"
            )
            for case in (numbers, maps)
        }
        (out / f"curves-{world.rank}.json").write_text(json.dumps({**found, "told": len(told)}))
        config, data, more = numbers()
        if world.rank == 1:
            # One process cannot go on; the other must not wait for it.
            data[0][3] = np.nan
        try:
            curve(config, data, more)
        except InputError as error:
            # Whole or not at all: torchrun ends this process as soon as the other has failed.
            part = out / f"error-{world.rank}.part"
            part.write_text(str(error))
            part.rename(out / f"error-{world.rank}.txt")
            sys.exit(2)
