"""Scores of a model or a method without training: errors, what novelty says, and which rings of |k| it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.regression.metrics import mae, metrics
from stm_models.tasks.hubbard.reproduction_plan import TEST_U
from stm_models.tasks.reproduction import Ask
from stm_models.tasks.verdict import STRANGE

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["edges", "errors", "radius", "ring_errors", "scores"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


def scores(ask: Ask, samples: Mapping[str, Samples], rings: int) -> dict[str, float]:
    """Return NAME.MEASURE of every data set, and of `TEST_U` what is left without, and of, each ring."""
    found: dict[str, float] = {}
    for name, part in samples.items():
        found |= {f"{name}.{key}": value for key, value in errors(ask, part).items()}
        if name == TEST_U and rings:
            found |= {f"{name}.{key}": value for key, value in ring_errors(ask.prediction, part, rings).items()}
    return found


def errors(ask: Ask, samples: Samples) -> dict[str, float]:
    """Return ``mae``, ``rmse``, ``r2``; with a novelty ``outside``, the share it calls so, and ``inside_mae``.

    An image is outside where fewer than `STRANGE` of held-out simulated images lie as far from the training data;
    without one inside there is no ``inside_mae``.
    """
    prediction = ask.prediction(samples.images)
    found = metrics(prediction, samples.targets)
    if ask.novelty is not None:
        inside = np.asarray(ask.novelty(samples.images)) >= STRANGE
        found["outside"] = float(1 - inside.mean())
        if inside.any():
            found["inside_mae"] = float(mae(prediction[inside], samples.targets[inside])[0])
    return found


def ring_errors(predict: Callable[[Array], Array], samples: Samples, rings: int) -> dict[str, float]:
    """Return the MAE where a ring has the mean image's values, ``without_N``, and where all else has, ``alone_N``.

    The mean is over ``samples``: what is replaced tells nothing of U. ``N`` is the ring's number from the centre.
    """
    mean = samples.images.mean(axis=0, dtype=np.float64).astype(np.float32)
    distance = radius(samples.attributes["input"])
    found = {}
    for number, (low, high) in enumerate(zip(edges(distance, rings)[:-1], edges(distance, rings)[1:], strict=True)):
        ring = (distance >= low) & (distance < high)
        for kind, kept in (("without", ~ring), ("alone", ring)):
            changed = np.where(kept, samples.images, mean)
            found[f"{kind}_{number}"] = float(mae(predict(changed), samples.targets)[0])
    return found


def radius(spec: Mapping[str, Any]) -> Floats:
    """Return |k| (H, W), in 1/a, of the pixels of an input."""
    kx = np.linspace(-spec["kx_max"], spec["kx_max"], spec["width"])
    ky = np.linspace(-spec["ky_max"], spec["ky_max"], spec["height"])
    return np.hypot(kx, ky[:, None])


def edges(distance: Floats, rings: int) -> Floats:
    """Return ``rings`` + 1 radii from 0 that hold every pixel, evenly spaced."""
    return np.linspace(0, np.nextafter(float(distance.max()), np.inf), rings + 1)
