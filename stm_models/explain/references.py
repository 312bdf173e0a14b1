"""Images that a model keeps: what explanations compare with, and what an exported file is judged on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["references"]

_MOST, _FEWEST = 16, 4
_NUMBERS = 2**18  # a MiB of float32


def references(images: NDArray[Any], heldout: NDArray[Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return ``baseline`` (C, H, W), the mean of training ``images`` (S, C, H, W), some of them, and some ``heldout``.

    These, ``background`` and ``heldout`` (K, C, H, W), are 16 images drawn from ``seed``, fewer but at least 4 where
    that is more than a MiB.
    """

    def some(pool: NDArray[Any]) -> NDArray[np.float32]:
        size = int(np.prod(pool.shape[1:]))
        count = min(len(pool), max(_FEWEST, min(_MOST, _NUMBERS // size)))
        picked = np.sort(np.random.default_rng(seed).choice(len(pool), count, replace=False))
        return np.ascontiguousarray(pool[picked], np.float32)

    return {
        "baseline": np.asarray(np.mean(images, axis=0, dtype=np.float64), np.float32),
        "background": some(images),
        "heldout": some(heldout),
    }
