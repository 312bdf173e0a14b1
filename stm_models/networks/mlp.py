"""Multi-layer perceptrons on block-averaged pixels."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from stm_models.networks.base import BlockMean, Network, NetworkOptions
from stm_models.search import Choice, Range, Space

__all__ = ["MLP", "FullyConnected", "FullyConnectedOptions", "MLPOptions"]


class MLPOptions(NetworkOptions):
    """Options of `MLP`; ``hidden`` may be written as ``[256, 64]`` or ``"256-64"``."""

    pool: int = Field(2, ge=1, le=64)
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field((256, 64), min_length=1, max_length=8)
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["gelu", "relu"] = "gelu"

    @field_validator("hidden", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value.split("-")
        return value


class MLP(Network):
    """Block mean, then linear layers; the input is the image standardised per pixel."""

    Options = MLPOptions
    space: ClassVar[Space] = {
        "pool": Choice((2, 4)),
        "hidden": Choice(("64", "128-64", "256-64")),
        "activation": Choice(("gelu", "relu")),
    }

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: MLPOptions) -> None:
        super().__init__(in_shape, outputs, options)
        channels, height, width = in_shape
        self.pool = BlockMean(options.pool, height, width)
        layers: list[nn.Module] = [nn.Flatten()]
        size = channels * self.pool.rows * self.pool.columns
        for hidden in options.hidden:
            activation = nn.GELU() if options.activation == "gelu" else nn.ReLU()
            layers += [nn.Linear(size, hidden), activation, nn.Dropout(options.dropout)]
            size = hidden
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(size, outputs)

    def features(self, x: Tensor) -> Tensor:
        """Return the (B, last hidden width) features of ``x`` (B, C, H, W)."""
        return self.body(self.pool(x))


class FullyConnectedOptions(MLPOptions):
    """Options of `FullyConnected`: those of `MLP` with the paper's values."""

    pool: int = Field(1, ge=1, le=64)
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field((512, 256), min_length=1, max_length=8)
    activation: Literal["gelu", "relu"] = "relu"


class FullyConnected(MLP):
    """The fully connected network of arXiv 2602.18890: every pixel, 512, 256."""

    Options = FullyConnectedOptions
    space: ClassVar[Space] = {"dropout": Range(0.0, 0.5)}
