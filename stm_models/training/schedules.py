"""Learning rate as a function of the step and of the validation errors so far, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stm_models.training.config import TrainConfig

__all__ = ["factor", "learning_rate", "plateaus"]

_WARM, _START, _END = 0.3, 1 / 25, 1e-4


def learning_rate(config: TrainConfig, epoch: int, batch: int, count: int, errors: Sequence[float] = ()) -> float:
    """Return the learning rate at a batch.

    Parameters
    ----------
    config : TrainConfig
    epoch : int
        From 1.
    batch, count : int
        The batch, from 0, and how many an epoch has.
    errors : sequence of float
        Validation errors of the epochs before, for ``plateau``.
    """
    step = (epoch - 1) * count + batch
    if config.schedule == "step":
        rate = config.learning_rate * config.decay_factor ** ((epoch - 1) // config.decay_epochs)
    elif config.schedule == "plateau":
        rate = config.learning_rate * config.decay_factor ** plateaus(errors, config.decay_epochs)
    else:
        rate = config.learning_rate * factor(config.schedule, step, config.epochs * count)
    return rate * min(1.0, (step + 1) / (config.warm_up * count)) if config.warm_up else rate


def plateaus(errors: Sequence[float], epochs: int) -> int:
    """Count how often ``epochs`` epochs in a row brought no smaller error; after each the count starts anew.

    Examples
    --------
    >>> plateaus([3, 2, 2, 2, 2, 2, 1], 2)
    2
    """
    best, waited, found = math.inf, 0, 0
    for error in errors:
        waited = 0 if error < best else waited + 1
        best = min(best, error)
        if waited == epochs:
            found, waited = found + 1, 0
    return found


def factor(schedule: str, step: int, total: int) -> float:
    """Return what the learning rate is multiplied with at ``step`` of ``total`` (both in batches).

    ``constant`` is 1; ``cosine`` falls from 1 to 0; ``one_cycle`` rises from 1/25 to 1 in the first 30 %,
    then falls to 1e-4, both along half a cosine.

    Examples
    --------
    >>> [round(factor("cosine", step, 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if schedule == "constant":
        return 1.0
    progress = step / max(total, 1)
    if schedule == "cosine":
        return _between(1.0, 0.0, progress)
    if progress < _WARM:
        return _between(_START, 1.0, progress / _WARM)
    return _between(1.0, _END, (progress - _WARM) / (1 - _WARM))


def _between(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
