"""How alike the images of a data set are, and which few patterns they are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["Components", "Similarity", "levels", "principal_components", "similarity"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_BLOCK = 4096  # pixels held in float64 at a time


@dataclass(frozen=True)
class Similarity:
    """Cosine similarity of standardised images between the levels of a parameter.

    Attributes
    ----------
    matrix : (L, L) float64
        Between the mean standardised images of two levels; ones on the diagonal.
    within : (L,) float64
        Mean over the pairs of different images of one level, NaN for a level of one image.
    count : (L,) int64
        Images of each level.
    """

    matrix: Floats
    within: Floats
    count: NDArray[np.int64]

    @property
    def between(self) -> Floats:
        """The elements above the diagonal, (L (L - 1) / 2,) float64."""
        return self.matrix[np.triu_indices(len(self.matrix), 1)]


@dataclass(frozen=True)
class Components:
    """Principal components of images about their mean.

    Attributes
    ----------
    patterns : (K, C, H, W) float64
        Orthonormal, the largest element of each positive.
    scores : (S, K) float64
        Of each image, in the images' unit.
    explained : (K,) float64
        Share of the variance, falling.
    """

    patterns: Floats
    scores: Floats
    explained: Floats


def levels(values: Array, most: int = 25) -> tuple[Floats, NDArray[np.int64]]:
    """Sort samples into the distinct values of a parameter, or into bands when there are more than ``most``.

    Parameters
    ----------
    values : (S,) floating
    most : int
        A band holds neighbouring values, all bands about equally many.

    Returns
    -------
    centres : (L,) float64
        Ascending: the value, or the mean of a band's values.
    level : (S,) int64
        Which one each sample belongs to.

    Examples
    --------
    >>> centres, level = levels(np.array([2.0, 0.0, 2.0]))
    >>> centres.tolist(), level.tolist()
    ([0.0, 2.0], [1, 0, 1])
    """
    values = np.asarray(values, np.float64)
    decimals = 9 - math.ceil(math.log10(np.abs(values).max(initial=0) or 1))  # whatever the unit
    distinct, level = np.unique(np.round(values, decimals), return_inverse=True)
    if len(distinct) <= most:
        return distinct.astype(np.float64), level.astype(np.int64)
    band = np.arange(len(distinct)) * most // len(distinct)
    return np.bincount(band, distinct) / np.bincount(band), band[level].astype(np.int64)


def similarity(images: Array, level: NDArray[np.int64]) -> Similarity:
    """Compare the images of every two levels.

    Each image is standardised by itself (mean 0, norm 1 over all channels and pixels), the images of a level
    are averaged, and the cosine of the angle between two averages is their similarity.

    Parameters
    ----------
    images : (S, C, H, W) floating
    level : (S,) int64
        0 ... L - 1, none of them empty; see `levels`.

    Raises
    ------
    InputError
        When an image has the same value everywhere: it has no direction.
    """
    count = np.bincount(level)
    total = np.zeros((len(count), images[0].size))
    for row, (image, number) in enumerate(zip(images, level, strict=True)):
        flat = image.ravel().astype(np.float64)
        flat -= flat.mean()
        norm = np.linalg.norm(flat)
        if not norm > 0:
            raise InputError(f"image {row} has the same value everywhere: expected structure to compare")
        total[number] += flat / norm
    length = np.linalg.norm(total, axis=1)
    unit = total / np.where(length > 0, length, 1.0)[:, None]
    matrix = unit @ unit.T
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    pairs = np.where(count > 1, count * (count - 1.0), np.nan)
    return Similarity(matrix, (length**2 - count) / pairs, count)


def principal_components(images: Array, count: int) -> Components:
    """Return the ``count`` patterns that explain most of the variance of images about their mean; exact.

    The eigenvectors of the images' inner products give the scores, so that nothing larger than
    ``images`` and an (S, S) matrix is held.

    Parameters
    ----------
    images : (S, C, H, W) floating
    count : int
        Fewer come back for fewer images, or when the rest explains nothing.

    Raises
    ------
    InputError
        For fewer than two images, or when all are equal.
    """
    if len(images) < 2:
        raise InputError(f"got {len(images)} image: expected at least 2 to find what varies")
    flat = images.reshape(len(images), -1)
    inner = np.zeros((len(images), len(images)))
    for first in range(0, flat.shape[1], _BLOCK):
        block = _centred(flat, first)
        inner += block @ block.T
    variance, vectors = np.linalg.eigh(inner)
    variance, vectors = variance[::-1], vectors[:, ::-1]
    whole = float(np.trace(inner))
    # What all images share leaves rounding only.
    if not whole > 1e-20 * max(float(np.square(flat.mean(axis=0, dtype=np.float64)).sum()), 1e-300):
        raise InputError(f"all {len(images)} images are equal: expected some that differ")
    kept = int(np.sum(variance[:count] > 1e-12 * variance[0]))
    lengths = np.sqrt(variance[:kept])
    scores = vectors[:, :kept] * lengths
    patterns = np.empty((kept, flat.shape[1]))
    for first in range(0, flat.shape[1], _BLOCK):
        patterns[:, first : first + _BLOCK] = (scores / variance[:kept]).T @ _centred(flat, first)
    rows = np.arange(kept)
    sign = np.sign(patterns[rows, np.abs(patterns).argmax(axis=1)])
    return Components(
        (patterns * sign[:, None]).reshape(kept, *images.shape[1:]), scores * sign, variance[:kept] / whole
    )


def _centred(flat: Array, first: int) -> Floats:
    block = flat[:, first : first + _BLOCK].astype(np.float64)
    centred: Floats = block - block.mean(axis=0)
    return centred
