"""The small convolutional network of arXiv 2602.18890."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from stm_models.errors import InputError
from stm_models.networks.base import BlockMean, Network, NetworkOptions
from stm_models.search import Choice, Range, Space

__all__ = ["Conv", "ConvOptions"]

_WIDTHS = (32, 64, 128)


class ConvOptions(NetworkOptions):
    """Options of `Conv`; ``pool`` averages blocks of pixels before the first convolution."""

    pool: int = Field(1, ge=1, le=64)
    hidden: int = Field(256, ge=1, le=65536)
    dropout: float = Field(0.2, ge=0, lt=1)


class Conv(Network):
    """Three blocks of twice conv-ReLU-BN and a max-pool, global mean, unit-norm features, a linear head.

    Notes
    -----
    The paper clamps its single output at zero; here that is the option ``clamp``, off by default.
    """

    Options = ConvOptions
    channels_last = True
    cam_refusal = ""
    space: ClassVar[Space] = {"dropout": Range(0.0, 0.5), "hidden": Choice((128, 256, 512))}

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: ConvOptions) -> None:
        super().__init__(in_shape, outputs, options)
        channels, height, width = in_shape
        self.pool = BlockMean(options.pool, height, width)
        least = 2 ** len(_WIDTHS)
        if min(self.pool.rows, self.pool.columns) < least:
            raise InputError(
                f"network 'conv' sees {self.pool.rows} x {self.pool.columns} pixels after "
                f"pool={options.pool}: it needs {least} x {least}, so choose a smaller pool or larger images"
            )
        layers: list[nn.Module] = []
        for width_out in _WIDTHS:
            for _ in range(2):
                convolution = nn.Conv2d(channels, width_out, kernel_size=3, padding=1)
                layers += [convolution, nn.ReLU(), nn.BatchNorm2d(width_out)]
                channels = width_out
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Linear(channels, options.hidden), nn.ReLU(), nn.Dropout(options.dropout))
        self.head = nn.Linear(options.hidden, outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the (B, hidden) features of ``x`` (B, C, H, W)."""
        pooled = self.body(self.pool(x)).mean(dim=(2, 3))
        return self.hidden(functional.normalize(pooled, dim=1))

    def cam_layer(self) -> nn.Module:
        """Return what the global mean is taken of."""
        return self.body
