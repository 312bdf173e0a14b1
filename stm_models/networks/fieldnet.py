"""A heat map of impurities from biases as channels: few residual layers that see about ten pixels around."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from stm_models.networks.map_network import MapNetwork, MapOptions, same_size
from stm_models.search import Choice, Space

__all__ = ["FieldNet", "FieldNetOptions"]

_RARE = -4.0  # logit: a pixel holds an impurity with probability .018


class FieldNetOptions(MapOptions):
    """Options of `FieldNet`; ``dilations``, one per residual layer, may be written as ``"1-2-4-2-1"``."""

    width: int = Field(32, ge=1, le=1024)
    dilations: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field((1, 2, 4, 2, 1), min_length=1, max_length=16)

    @field_validator("dilations", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value.split("-")
        return value


class FieldNet(MapNetwork):
    """A 5x5 convolution, then residual 3x3 ones: x + relu(conv(x)).

    Notes
    -----
    No normalisation layer: each pixel's score depends on what lies within ``2 + sum(dilations)`` pixels and on
    nothing else, so that a field may have any size and tiles of it get the same answer.
    """

    Options = FieldNetOptions
    space: ClassVar[Space] = {"width": Choice((16, 32, 48)), "dilations": Choice(("1-2-4-2-1", "1-2-4-4-2-1"))}

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: FieldNetOptions) -> None:
        super().__init__(in_shape, outputs, options)
        self.first = same_size(in_shape[0], options.width, 5)
        self.layers = nn.ModuleList(same_size(options.width, options.width, 3, step) for step in options.dilations)
        self.head = nn.Conv2d(options.width, 1, 1)
        nn.init.constant_(self.head.bias, _RARE)

    def trunk(self, x: Tensor) -> Tensor:
        """Return the (B, width, H, W) features of ``x`` (B, C, H, W)."""
        x = torch.relu(self.first(x))
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return x
