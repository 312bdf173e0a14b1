"""Scores of a model or a method without training: errors, what novelty says, and which rings of |k| it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stm_models.regression.metrics import mae, metrics
from stm_models.tasks.hubbard.reproduction_plan import TEST_U
from stm_models.tasks.hubbard.reproduction_rings import ring_errors
from stm_models.tasks.reproduction import Ask
from stm_models.tasks.verdict import STRANGE

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["errors", "scores"]


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
