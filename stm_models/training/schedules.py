"""Learning rate as a function of the step, so that resuming needs no state."""

from __future__ import annotations

import math

__all__ = ["factor"]

_WARM, _START, _END = 0.3, 1 / 25, 1e-4


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
