"""Training images that explanations compare with: their mean, and a few of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["references"]

_MOST, _FEWEST = 16, 4
_NUMBERS = 2**18  # a MiB of float32


def references(images: NDArray[Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return ``baseline`` (C, H, W), the mean of training ``images`` (S, C, H, W), and ``background`` (K, C, H, W).

    The background are 16 images drawn from ``seed``, fewer but at least 4 where that is more than a MiB.
    """
    size = int(np.prod(images.shape[1:]))
    count = min(len(images), max(_FEWEST, min(_MOST, _NUMBERS // size)))
    picked = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    return {
        "baseline": np.asarray(np.mean(images, axis=0, dtype=np.float64), np.float32),
        "background": np.ascontiguousarray(images[picked], np.float32),
    }
