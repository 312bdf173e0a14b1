"""A linear function of block-averaged pixels: the least that a network can be."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from stm_models.networks.base import BlockMean, Network, NetworkOptions
from stm_models.search import Choice, Space

__all__ = ["Linear", "LinearOptions"]


class LinearOptions(NetworkOptions):
    """Options of `Linear`."""

    pool: int = Field(1, ge=1, le=64)


class Linear(Network):
    """Block mean, then one linear layer; the features are the averaged pixels themselves."""

    Options = LinearOptions
    space: ClassVar[Space] = {"pool": Choice((1, 2, 4))}

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: LinearOptions) -> None:
        super().__init__(in_shape, outputs, options)
        channels, height, width = in_shape
        self.pool = BlockMean(options.pool, height, width)
        self.head = nn.Linear(channels * self.pool.rows * self.pool.columns, outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the (B, pixels) averaged pixels of ``x`` (B, C, H, W)."""
        return self.pool(x).flatten(1)
