"""The network of arXiv:2006.15898: attention between the maps of one surface at several voltages."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stm_models.networks.map_network import MapNetwork, MapOptions, same_size
from stm_models.search import Choice, Space

__all__ = ["VoltageAttention", "VoltageAttentionOptions"]


class VoltageAttentionOptions(MapOptions):
    """Options of `VoltageAttention`.

    Attributes
    ----------
    width, depth : int
        Channels of the convolutions, and d of query, key and value.
    inner : "global" or "pixelwise"
        <Q_i, K_j> over all pixels and channels, or over the channels of each pixel by itself.
    scaled : bool
        Divide the inner product by the root of the number of its terms.
    """

    answer: Literal["sigmoid", "softmax"] = "softmax"
    width: int = Field(16, ge=1, le=1024)
    depth: int = Field(8, ge=1, le=1024)
    inner: Literal["global", "pixelwise"] = "global"
    scaled: bool = True


class VoltageAttention(MapNetwork):
    """One small CNN for every voltage; values weighted by softmax_j <Q_i, K_j>, their mean over i, a linear head.

    Notes
    -----
    The weights know nothing of the number of voltages or their order: any number goes through. The paper sums
    over i; the mean keeps the scores' size when voltages are added. Keys have no bias, which would add the same
    to every weight's exponent.
    """

    Options = VoltageAttentionOptions
    space: ClassVar[Space] = {
        "width": Choice((16, 32)),
        "depth": Choice((8, 16)),
        "inner": Choice(("global", "pixelwise")),
    }
    options: VoltageAttentionOptions

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: VoltageAttentionOptions) -> None:
        super().__init__(in_shape, outputs, options)
        width, depth = options.width, options.depth
        self.body = nn.Sequential(
            same_size(1, width, 5), nn.ReLU(),
            same_size(width, width, 3, 2), nn.ReLU(),
            same_size(width, width, 3, 3), nn.ReLU(),
        )  # fmt: skip
        self.query, self.value = nn.Conv2d(width, depth, 1), nn.Conv2d(width, depth, 1)
        self.key = nn.Conv2d(width, depth, 1, bias=False)
        self.head = nn.Conv2d(depth, 1, 1)

    def trunk(self, x: Tensor) -> Tensor:
        """Return the (B, depth, H, W) mean of the weighted values of ``x`` (B, V, H, W), any V."""
        count, height, width = x.shape[1:]
        found = self.body(x.reshape(-1, 1, height, width))
        shape = (-1, count, self.options.depth, height * width)
        query, key, value = (part(found).reshape(shape) for part in (self.query, self.key, self.value))
        scale = (self.options.depth * (height * width if self.options.inner == "global" else 1)) ** -0.5
        if not self.options.scaled:
            scale = 1.0
        if self.options.inner == "global":
            products = query.flatten(2) @ key.flatten(2).transpose(1, 2)
            weights = torch.softmax(scale * products, dim=2).mean(dim=1)  # (B, V): of each value in the mean over i
            mixed = (weights[:, :, None, None] * value).sum(dim=1)
        else:
            products = (query.unsqueeze(2) * key.unsqueeze(1)).sum(dim=3)  # (B, i, j, H W)
            weights = torch.softmax(scale * products, dim=2).mean(dim=1)
            mixed = (weights.unsqueeze(2) * value).sum(dim=1)
        return mixed.reshape(-1, self.options.depth, height, width)
