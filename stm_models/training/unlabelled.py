"""Measured maps without labels that take part in a training: random tiles, and how sure the network is of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stm_models.errors import InputError
from stm_models.training.batches import to_device

__all__ = ["UnlabelledTiles"]

Array = NDArray[Any]


class UnlabelledTiles:
    """Random tiles of measured maps.

    Parameters
    ----------
    images : sequence of (C, H, W) float32
        Network inputs of any height and width, at least the tile's.
    size : (h, w)
        Of a tile.
    device : torch.device

    Raises
    ------
    InputError
        When a map is smaller than a tile.
    """

    def __init__(self, images: Sequence[Array], size: tuple[int, int], device: torch.device) -> None:
        for image in images:
            if image.shape[1] < size[0] or image.shape[2] < size[1]:
                raise InputError(
                    f"a measured map has {image.shape[1]} x {image.shape[2]} pixels, the training's images "
                    f"{size[0]} x {size[1]}: give larger maps, or train on smaller images"
                )
            if not np.isfinite(image).all():
                raise InputError("a measured map holds NaN or infinity: mask or crop it first")
        self._images, self._size = [to_device(image, device) for image in images], size

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` tiles (count, C, h, w), each of a map and a place drawn by the CPU ``generator``."""
        tiles = []
        for fractions in torch.rand((count, 3), generator=generator).tolist():
            image = self._images[int(fractions[0] * len(self._images))]
            spare = [have - want + 1 for have, want in zip(image.shape[1:], self._size, strict=True)]
            y, x = (int(fraction * room) for fraction, room in zip(fractions[1:], spare, strict=True))
            tiles.append(image[:, y : y + self._size[0], x : x + self._size[1]])
        return torch.stack(tiles)
