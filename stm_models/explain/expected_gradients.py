"""Expected gradients: integrated gradients averaged over training images as baselines, at random points [1]_.

Notes
-----
The estimator, and the order in which its random numbers are drawn, is that of ``shap.GradientExplainer``: with the
same background, number of draws and seed both give the same map of one image. Here the draws are the same for every
image, so that a map does not depend on what else is asked.

References
----------
.. [1] Erion et al., Nature Machine Intelligence 3, 620 (2021), arXiv:1906.10670.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stm_models.explain.integrated_gradients import refusal
from stm_models.explain.path import Path

__all__ = ["path", "refusal"]


def path(background: NDArray[np.float32], draws: int, seed: int) -> Path:
    """Return ``draws`` points between an image and one of ``background`` (K, C, H, W)."""
    rng = np.random.RandomState(seed)
    pairs = [(rng.choice(len(background)), rng.uniform()) for _ in range(draws)]
    index, alpha = (np.array(part) for part in zip(*pairs, strict=True))
    return Path(
        background.astype(np.float32), index.astype(np.int64), alpha.astype(np.float32),
        np.full(draws, 1 / draws, np.float32),
    )  # fmt: skip
