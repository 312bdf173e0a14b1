"""Principal components of images that are standardised per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.regression.scaling import pixel_statistics

__all__ = ["Components", "principal_components"]

_CHUNK = 128
_LEAST = 1e-7


@dataclass(frozen=True)
class Components:
    """Per-pixel statistics and the leading principal components.

    Attributes
    ----------
    mean, scale : (C, H, W) float32
    vectors : (K, C*H*W) float32
        Orthonormal rows.
    variances : (K,) float32
        Variance of the training data along each row, falling.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    vectors: NDArray[np.float32]
    variances: NDArray[np.float32]

    def scores(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return the (S, K) coordinates of ``images`` (S, C, H, W) in units of their training rms.

        Raises
        ------
        InputError
            For images of another shape than those it was fitted to.
        """
        if images.shape[1:] != self.mean.shape:
            raise InputError(f"images of shape {images.shape[1:]} were given: expected {self.mean.shape}")
        parts = [
            _flat(images[start : start + _CHUNK], self.mean, self.scale) @ self.vectors.T
            for start in range(0, len(images), _CHUNK)
        ]
        return np.concatenate(parts).astype(np.float64) / np.sqrt(self.variances.mean(dtype=np.float64))


def principal_components(images: NDArray[Any], count: int, seed: int) -> Components:
    """Fit at most ``count`` principal components to ``images`` (S, C, H, W).

    Directions with less than 1e-7 of the leading variance are left out.

    Raises
    ------
    InputError
        When there are fewer than two images, or all are equal.
    """
    mean, scale = pixel_statistics(images)
    count = min(count, len(images) - 1, mean.size)
    if count < 1:
        raise InputError(f"{len(images)} images are too few for principal components: give at least 2")
    # Here, because the exporter loads a finished model without it, and it takes seconds to import.
    from sklearn.decomposition import PCA

    pca = PCA(count, svd_solver="randomized", random_state=seed, copy=False)
    with np.errstate(invalid="ignore"):
        pca.fit(_flat(images, mean, scale))
    variances = np.asarray(pca.explained_variance_, dtype=np.float32)
    keep = variances > _LEAST * variances[0]
    if not keep.any():
        raise InputError(f"all {len(images)} images are equal: give images that vary")
    vectors = np.asarray(pca.components_, dtype=np.float32)[keep]
    return Components(mean, scale, np.ascontiguousarray(vectors), variances[keep])


def _flat(images: NDArray[Any], mean: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    result = np.subtract(images, mean, dtype=np.float32)
    result /= scale
    return result.reshape(len(images), -1)
