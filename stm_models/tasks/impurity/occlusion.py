"""Does a detector see the rings around an impurity, or the spot on it? One of them is taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CORE", "GOAL_CORE", "GOAL_RINGS", "RINGS", "Occlusion", "absolute", "is_relative", "occlusion",
    "occlusion_of_model", "peak_score", "regions",
]  # fmt: skip

Array = NDArray[Any]
Score = Callable[[Array], Array]

CORE = 1.5
"""Radius of the core, px."""
RINGS = 8.0
"""Radius up to which the rings are taken, px."""
GOAL_CORE, GOAL_RINGS = 0.8, 0.6
"""A sound detector keeps at least so much without the core, and at most so much without the rings."""
_WINDOW = 48  # px
_NEAR = 2.0  # px; the peak may move so far
_SEED = 0, 9  # of the peaks that are occluded


@dataclass(frozen=True)
class Occlusion:
    """Share of the peak score that is kept, (P,) float64 each: without the core, without the rings."""

    without_core: Array
    without_rings: Array

    def record(self) -> dict[str, float]:
        """Means, and the number of peaks; nothing but that number, 0, without a peak."""
        count = {"occluded_peaks": float(len(self.without_core))}
        if not len(self.without_core):
            return count
        means = {"without_core": self.without_core.mean(), "without_rings": self.without_rings.mean()}
        return count | {name: float(value) for name, value in means.items()}


def occlusion(
    score: Score,
    images: Array,
    positions: Sequence[Array],
    *,
    most: int = 24,
    window: int | tuple[int, int] = _WINDOW,
) -> Occlusion:
    """Zero the core (r < 1.5 px) or the rings (1.5 to 8 px) of found impurities, one at a time, in every map.

    Parameters
    ----------
    score : callable
        (B, C, H, W) -> (B, H, W), above 0, of any height and width.
    images : (S, C, H, W)
        Prepared: 0 is the background.
    positions : sequence of (N, 2) array, px
        Found and right ones of each image, y and x. Those less than 8 px from the border are left out.
    most : int
        So many of them, drawn at random, the same ones whenever they are as many.
    window : int or (int, int), px
        Height and width about a position that the score is computed in; at least the receptive field, to be exact.

    Returns
    -------
    Occlusion
        Highest score within 2 px of the position, over that of the whole image; at most 1.
    """
    shape = np.array(images.shape[2:])
    places = [
        (row, np.asarray(place, np.float64))
        for row, found in enumerate(positions)
        for place in np.asarray(found).reshape(-1, 2)
        if np.all(place >= RINGS) and np.all(place <= shape - 1 - RINGS)
    ]
    chosen = np.sort(np.random.default_rng(_SEED).permutation(len(places))[:most])
    kept = [_kept(score, images[places[i][0]], places[i][1], window) for i in chosen]
    both = np.array(kept, np.float64).reshape(-1, 2)
    return Occlusion(both[:, 0], both[:, 1])


def occlusion_of_model(
    answer: Score, shape: tuple[int, int], images: Array, positions: Sequence[Array], *, most: int = 24
) -> Occlusion:
    """Occlude impurities that a model of one input size found; see `occlusion`.

    Parameters
    ----------
    answer : callable
        (B, C, H, W) -> (B, 1, H, W), of any height and width; beyond ``shape`` tile by tile.
    shape : (int, int), px
        Height and width of the model's own input.
    """
    relative = is_relative(answer, images[:, :, : shape[0], : shape[1]])
    # Tiles are divided by maxima of their own: within one window there may be only one.
    window = shape if relative else (max(shape[0], _WINDOW), max(shape[1], _WINDOW))
    return occlusion(absolute(answer, relative), images, positions, most=most, window=window)


def absolute(answer: Score, relative: bool) -> Score:
    """Make (B, 1, H, W) -> scores (B, H, W) of a model that answers with maps.

    Parameters
    ----------
    relative : bool
        Whether each map was divided by its own maximum, as a softmax is: that may be the very peak that is occluded,
        so such maps are divided by their median instead, which one peak hardly moves.
    """

    def score(images: Array) -> Array:
        maps = np.asarray(answer(images), np.float64)[:, 0]
        if not relative:
            return maps
        level = np.median(maps, axis=(1, 2), keepdims=True)
        return np.asarray(maps / np.maximum(level, 1e-300))

    return score


def is_relative(answer: Score, images: Array) -> bool:
    """Tell whether a model's score maps are divided by their own maxima: only then that of an empty image is 1 as well.

    Other scores may be exactly 1 in float32 too, at impurities that are beyond doubt.
    """
    return bool(np.max(answer(np.zeros_like(images[:1]))) == 1)


def peak_score(answer: Score, prediction: Array, place: Array) -> Score:
    """Make (B, C, H, W) -> (B,): the highest score within 2 px of ``place`` (y, x).

    Parameters
    ----------
    answer : callable
        (B, C, H, W) -> (B, 1, H, W).
    prediction : (1, H, W)
        The answer to the image that is explained.
    """
    near = _distance((prediction.shape[-2], prediction.shape[-1]), place) < _NEAR

    def score(images: Array) -> Array:
        relative = bool(np.max(prediction) == 1) and is_relative(answer, images)
        return np.asarray(absolute(answer, relative)(images)[:, near].max(axis=1))

    return score


def regions(shape: tuple[int, int], place: Array) -> dict[str, Array]:
    """Return core and rings around ``place`` (y, x), px, in a map: (H, W) bool each."""
    distance = _distance(shape, place)
    return {"core": distance < CORE, "rings": (distance >= CORE) & (distance <= RINGS)}


def _distance(shape: tuple[int, int], place: Array) -> Array:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - place[0], x - place[1])


def _kept(score: Score, image: Array, place: Array, window: int | tuple[int, int]) -> tuple[float, float]:
    shape = np.array(image.shape[1:])
    size = np.broadcast_to(window, 2)
    first = np.clip(np.rint(place).astype(int) - size // 2, 0, np.maximum(shape - size, 0))
    crop = image[:, first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
    distance = _distance((crop.shape[1], crop.shape[2]), place - first)
    whole = np.stack([crop, crop, crop])
    whole[1][:, distance < CORE] = 0
    whole[2][:, (distance >= CORE) & (distance < RINGS)] = 0
    before, core, rings = (float(one[distance < _NEAR].max()) for one in np.asarray(score(whole), np.float64))
    floor = max(before, 1e-300)
    return float(np.clip(core / floor, 0, 1)), float(np.clip(rings / floor, 0, 1))
