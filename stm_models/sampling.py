"""A few of many, the same ones every time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["evenly"]


def evenly(order: NDArray[Any], most: int) -> NDArray[Any]:
    """Return at most ``most`` members of a sorted order (N,), evenly spread over it, the first and last among them.

    >>> evenly(np.arange(10, 21), 3).tolist(), evenly(np.arange(2), 3).tolist()
    ([10, 15, 20], [0, 1])
    """
    if len(order) <= most:
        return order
    return order[np.linspace(0, len(order) - 1, most).round().astype(np.int64)]
