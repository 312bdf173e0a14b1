"""Maps of any size through a network of one size: overlapping tiles, blended; reflected borders for small fields."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError

__all__ = ["filled_up", "whole_field"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


def whole_field(
    stack: ArrayLike,
    model: Callable[[Floats32], ArrayLike],
    size: tuple[int, int],
    *,
    margin: int = 8,
    batch: int = 16,
) -> Floats32:
    """Answer for a whole field.

    Parameters
    ----------
    stack : (V, H, W) array_like
        Prepared maps of any height and width.
    model : callable
        (B, V, h, w) float32 -> (B, h, w): the network with a fixed input.
    size : (h, w), px
        Of that input.
    margin : int, px
        So much next to a cut through the field is thrown away, because the network does not see across it: the
        radius of its receptive field. Lowered for inputs too small for it (at most a quarter of the input).
    batch : int
        Tiles at once.

    Returns
    -------
    (H, W) float32
        Pixel for pixel the field's. Where tiles overlap they are blended; with a network that looks no farther than
        ``margin`` it is what a network of the field's size would answer, except near the field's own edge.

    Raises
    ------
    InputError
        When the stack is not (V, H, W), sizes are not positive or the model answers another shape.
    """
    maps = np.asarray(stack, np.float32)
    if maps.ndim != 3 or not maps.size:
        raise InputError(f"stack has shape {maps.shape}: expected (bias, y, x)")
    if min(size) < 1 or margin < 0 or batch < 1:
        raise InputError(f"tiles of {size} px, margin {margin}, {batch} at once: expected positive numbers")
    height, width = maps.shape[1:]
    before, after = filled_up((height, width), size)
    padded = np.pad(maps, ((0, 0), (before[0], after[0]), (before[1], after[1])), mode="reflect")
    axes = [_tiles(total, tile, margin) for total, tile in zip(padded.shape[1:], size, strict=True)]
    places = [(y, x) for y in range(len(axes[0][0])) for x in range(len(axes[1][0]))]
    total = np.zeros(padded.shape[1:])
    weight = np.zeros(padded.shape[1:])
    for begin in range(0, len(places), batch):
        chunk = places[begin : begin + batch]
        corners = [(axes[0][0][y], axes[1][0][x]) for y, x in chunk]
        tiles = np.stack([padded[:, y : y + size[0], x : x + size[1]] for y, x in corners])
        answers = np.asarray(model(tiles))
        if answers.shape != (len(chunk), *size):
            raise InputError(f"the model answers {answers.shape}: expected {(len(chunk), *size)}, one map per tile")
        for (j, i), (y, x), answer in zip(chunk, corners, answers, strict=True):
            trust = axes[0][1][j][:, None] * axes[1][1][i][None, :]
            total[y : y + size[0], x : x + size[1]] += trust * answer
            weight[y : y + size[0], x : x + size[1]] += trust
    whole = total / weight
    return whole[before[0] : before[0] + height, before[1] : before[1] + width].astype(np.float32)


def filled_up(field: tuple[int, int], size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return how many pixels are mirrored before and after each axis of a ``field`` smaller than ``size``."""
    lack = [max(0, want - have) for want, have in zip(size, field, strict=True)]
    return [pixels // 2 for pixels in lack], [pixels - pixels // 2 for pixels in lack]


def _tiles(total: int, tile: int, margin: int) -> tuple[list[int], list[Floats]]:
    """First pixels of tiles along one axis, and the trust in each of their pixels."""
    cut = min(margin, tile // 4)
    stride = max(1, tile - 2 * cut - min(cut, tile // 8))
    count = 1 + -(-(total - tile) // stride)
    firsts = [round(index * (total - tile) / max(count - 1, 1)) for index in range(count)]
    trusts = []
    for first in firsts:
        ramp = np.full(tile, np.inf)
        distance = np.arange(tile, dtype=np.float64)
        if first > 0:
            ramp = np.minimum(ramp, distance + 1 - cut)
        if first + tile < total:
            ramp = np.minimum(ramp, tile - distance - cut)
        trusts.append(np.clip(ramp, 0, min(max(cut, 1), 4)))
    return firsts, trusts
