"""Networks that others designed: their features, and a linear head of our own."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from stm_models.errors import InputError, one_line
from stm_models.files import sha256
from stm_models.networks import start_weights
from stm_models.networks.base import Network, NetworkOptions
from stm_models.networks.dry_run import feature_count, sizes_that_work
from stm_models.search import Range, Space

__all__ = ["Backbone", "BackboneOptions"]

_log = logging.getLogger(__name__)


class BackboneOptions(NetworkOptions):
    """Options of every `Backbone`.

    Attributes
    ----------
    pretrained : bool
        Start from published weights, which are downloaded once.
    weights : str or None
        Start from this file instead.
    normalise : bool
        Scale the features of each image to unit norm.
    dropout : float
        Of features, in training.
    """

    pretrained: bool = False
    weights: str | None = None
    normalise: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)

    @field_validator("weights")
    @classmethod
    def _exists(cls, value: str | None) -> str | None:
        if value is not None and (Path(value).suffix not in start_weights.SUFFIXES or not Path(value).is_file()):
            raise ValueError(f"expected an existing file that ends in {', '.join(start_weights.SUFFIXES)}")
        return value

    @model_validator(mode="after")
    def _one_start(self) -> BackboneOptions:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained and weights are both given: choose one")
        return self


class Backbone(Network):
    """A network of another library without its last layer, then a linear head."""

    name: ClassVar[str]
    Options: ClassVar[type[NetworkOptions]] = BackboneOptions
    space: ClassVar[Space] = {"dropout": Range(0.0, 0.5)}
    options: BackboneOptions

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: BackboneOptions) -> None:
        super().__init__(in_shape, outputs, options)
        try:
            count = feature_count(self.build, in_shape)
        except ValueError as error:
            raise self._wrong_size(in_shape, error) from error
        self.body = self.build(in_shape)
        if options.pretrained:
            self.body, self.start = self.download(in_shape)
        elif options.weights is not None:
            self.start = self._start(Path(options.weights))
        _make_plain(self.body)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(count, outputs)

    @classmethod
    @abstractmethod
    def build(cls, in_shape: tuple[int, int, int]) -> nn.Module:
        """Return the module that gives features (B, F) of images (B, \\*in_shape), with random weights.

        It may raise whatever the library raises for a shape that it cannot take.
        """

    @abstractmethod
    def download(self, in_shape: tuple[int, int, int]) -> tuple[nn.Module, dict[str, Any]]:
        """Return that module with published weights, and a record of which these are."""

    @abstractmethod
    def layers(self) -> tuple[list[str], Mapping[str, Callable[[Tensor, int], Tensor]]]:
        """Return the names of the layers that ``body`` lacks, and how those that see the images change channels."""

    def remap(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights that another version of the library saved, as ``body`` names and sizes them."""
        return state

    def features(self, x: Tensor) -> Tensor:
        """Return the (B, F) features of ``x`` (B, C, H, W)."""
        found = self.body(x)
        if self.options.normalise:
            found = functional.normalize(found, dim=1)
        return self.dropout(found)

    def no_download(self, error: Exception | str) -> InputError:
        """Return the error for published weights that cannot be had."""
        reason = error if isinstance(error, str) else f"{type(error).__name__}: {one_line(error, 200)}"
        return InputError(
            f"the pretrained weights of network {self.name!r} could not be had ({reason}): without a connection "
            "give a copy of them with train.options.weights=FILE, or leave train.options.pretrained out"
        )

    def _wrong_size(self, in_shape: tuple[int, int, int], error: Exception) -> InputError:
        channels, height, width = in_shape
        sizes = [f"{size} x {size}" for size in sizes_that_work(self.build, in_shape)]
        remedy = (
            f"sizes that work are, among others, {', '.join(sizes)}; give such images, or choose another network"
            if sizes
            else "no size was found that works; choose another network"
        )
        return InputError(
            f"network {self.name!r} cannot take images of {height} x {width} pixels and {channels} "
            f"channel{'s' if channels > 1 else ''} ({error}): {remedy}"
        )

    def _start(self, path: Path) -> dict[str, Any]:
        heads, stems = self.layers()
        unused = start_weights.lay(
            start_weights.read(path), self.body, heads=heads, stems=stems, remap=self.remap, where=f"weights {path}"
        )
        if unused:
            _log.warning("%s: not used of %s: %s; the head starts fresh", self.name, path, ", ".join(unused))
        return {"weights": path.name, "sha256": sha256(path), "unused": unused}


class _Mean(nn.Module):
    """Mean over all pixels, which stay as axes of length one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


def _make_plain(body: nn.Module) -> None:
    """Make every layer one that explanations and the exporter can differentiate through; values stay the same."""
    for module in body.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
        for name, child in module.named_children():
            # torch's own changes strides in place where channels come last, as after a ConvNeXt block.
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, _Mean())
