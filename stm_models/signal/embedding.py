"""Features of many dimensions drawn in a plane, and how well they order what is known of the samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from stm_models.errors import InputError
from stm_models.signal.similarity import principal_components

__all__ = ["agreement", "displacement", "neighbourhoods", "principal_plane"]

Floats = NDArray[np.floating]
_DIMENSIONS = 50
_PERPLEXITY = 30.0


def principal_plane(features: Floats, fitted: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project features on the two directions along which some of them vary most.

    Parameters
    ----------
    features : (S, F) floating
    fitted : (S,) bool
        The samples that decide the directions and the origin.

    Returns
    -------
    points : (S, 2) float64
        The second column is zero where a single direction explains everything.
    explained : (2,) float64
        Share of the variance of the fitted samples.

    Raises
    ------
    InputError
        For fewer than two fitted samples, or when all are equal.
    """
    found = principal_components(features[fitted][:, :, None, None], 2)
    count = len(found.explained)
    points, explained = np.zeros((len(features), 2)), np.zeros(2)
    centre = features[fitted].mean(axis=0, dtype=np.float64)
    points[:, :count] = (features - centre) @ found.patterns.reshape(count, -1).T
    explained[:count] = found.explained
    return points, explained


def neighbourhoods(features: Floats, seed: int) -> NDArray[np.float64]:
    """Lay features out in a plane so that near ones stay near: t-SNE of their 50 first principal components.

    Distances between far points, and axes, mean nothing.

    Parameters
    ----------
    features : (S, F) floating, S >= 4
    seed : int

    Returns
    -------
    (S, 2) float64

    Raises
    ------
    InputError
        For fewer than four samples, or when all are equal.

    Notes
    -----
    L. van der Maaten and G. Hinton, J. Mach. Learn. Res. 9, 2579 (2008); perplexity 30, or a third of the samples.
    """
    if len(features) < 4:
        raise InputError(f"got {len(features)} samples: expected at least 4 to lay out their neighbourhoods")
    reduced = principal_components(features[:, :, None, None], _DIMENSIONS).scores
    if reduced.shape[1] == 1:
        reduced = np.column_stack([reduced, np.zeros(len(reduced))])
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return found.astype(np.float64)


def agreement(features: Floats, values: Floats, groups: NDArray[np.integer], neighbours: int = 10) -> float:
    """Return how much of a quantity's variance the mean over the nearest samples of other groups explains.

    Parameters
    ----------
    features : (S, F) floating
    values : (S,) floating
    groups : (S,) int
        Samples of one group are no neighbours: they show the same state.

    Returns
    -------
    float
        R2: 1 where neighbours have the sample's own value, 0 or below where they tell nothing of it; NaN where the
        values or the groups are all the same.
    """
    own = groups[:, None] == groups
    count = min(neighbours, int((~own).sum(axis=1).min()))
    spread = float(np.square(values - values.mean()).sum())
    if count == 0 or not spread > 0:
        return float("nan")
    flat = features - features.mean(axis=0, dtype=np.float64)
    squares = np.square(flat).sum(axis=1)
    distance = squares[:, None] + squares - 2 * flat @ flat.T
    distance[own] = np.inf
    nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
    return 1 - float(np.square(values - values[nearest].mean(axis=1)).sum()) / spread


def displacement(before: Floats, after: Floats) -> float:
    """Return how far features (S, F) moved, in units of their spread before: rms over the samples of both."""
    moved = np.square(np.subtract(after, before, dtype=np.float64)).sum(axis=1).mean()
    spread = np.square(before - before.mean(axis=0, dtype=np.float64)).sum(axis=1).mean()
    return float(np.sqrt(moved / spread))
