"""Where a map lies: the share of known parts of the image in it, and what the answer loses without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.explain.faithfulness import Answer, evaluate_in_batches

__all__ = ["ELSEWHERE", "areas", "effects", "partition", "shares"]

Array = NDArray[Any]
ELSEWHERE = "elsewhere"


def partition(regions: Mapping[str, Array], shape: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
    """Complete regions (H, W) of an image of ``shape`` with the rest of it, `ELSEWHERE`.

    Raises
    ------
    InputError
        When two of them overlap or one has another shape.
    """
    taken = np.zeros(shape, np.int64)
    for name, mask in regions.items():
        if mask.shape != shape or mask.dtype != np.bool_:
            raise InputError(f"region {name!r} is {mask.dtype} of shape {mask.shape}: expected bool of shape {shape}")
        taken += mask
    if taken.max(initial=0) > 1:
        raise InputError(f"the regions {', '.join(regions)} overlap: expected every pixel in one of them")
    return {**regions, ELSEWHERE: taken == 0}


def shares(map: Array, regions: Mapping[str, Array]) -> dict[str, float]:
    """Return the share, 0 to 1, of each region in the sum of \\|map\\| over a map; zeros for a map of zeros.

    Parameters
    ----------
    map : (C, H, W)
    regions : mapping of str to (H, W) bool
    """
    strength = np.abs(np.asarray(map, np.float64)).sum(axis=0)
    total = float(strength.sum())
    return {name: float(strength[mask].sum()) / total if total > 0 else 0.0 for name, mask in regions.items()}


def areas(regions: Mapping[str, Array]) -> dict[str, float]:
    """Return the share of each region, (H, W) bool, in the image: what a map of nothing in particular has there."""
    return {name: float(mask.mean()) for name, mask in regions.items()}


def effects(answer: Answer, image: Array, reference: Array, regions: Mapping[str, Array]) -> dict[str, float]:
    """Return by how much the answer changes when a region of the image takes the values of the reference.

    Parameters
    ----------
    answer : callable
        (B, C, H, W) -> (B,).
    image, reference : (C, H, W) float32
    regions : mapping of str to (H, W) bool
    """
    images = (np.where(mask, reference, image) for mask in (np.zeros(image.shape[1:], bool), *regions.values()))
    plain, *changed = evaluate_in_batches(answer, images, image.size)
    return {name: float(value - plain) for name, value in zip(regions, changed, strict=True)}
