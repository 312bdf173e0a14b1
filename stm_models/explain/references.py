"""Images that a model keeps: what explanations compare with, and what an exported file is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["references"]

Array = NDArray[Any]

_MOST, _FEWEST = 16, 4
_NUMBERS, _HELD_OUT = 2**18, 2**21  # 1 MiB and 8 MiB of float32


def references(images: Array, heldout: Array | Sequence[Array], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return ``baseline`` (C, H, W), the mean of training ``images`` (S, C, H, W), some of them, and some ``heldout``.

    Parameters
    ----------
    heldout : (S, C, H, W), or several such
        Images that the model was not fitted to, of one set or of each of several sets.

    Returns
    -------
    dict
        ``background`` (K, C, H, W) are 16 images drawn from ``seed``, fewer but at least 4 where that is more than a
        MiB; ``heldout`` are 16 of each set, fewer but at least 4 together, of each set at least one, where all are more
        than 8 MiB.
    """

    def some(pool: Array, numbers: int, fewest: int) -> NDArray[np.float32]:
        size = int(np.prod(pool.shape[1:]))
        count = min(len(pool), max(fewest, min(_MOST, numbers // size)))
        picked = np.sort(np.random.default_rng(seed).choice(len(pool), count, replace=False))
        return np.ascontiguousarray(pool[picked], np.float32)

    sets = [heldout] if isinstance(heldout, np.ndarray) else list(heldout)
    each = _HELD_OUT // len(sets), -(-_FEWEST // len(sets))
    return {
        "baseline": np.asarray(np.mean(images, axis=0, dtype=np.float64), np.float32),
        "background": some(images, _NUMBERS, _FEWEST),
        "heldout": np.concatenate([some(pool, *each) for pool in sets]),
    }
