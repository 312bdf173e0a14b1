"""What a network is: standardised images in, features, standardised targets out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stm_models.config import Config
from stm_models.errors import InputError
from stm_models.search import Space

__all__ = ["BlockMean", "Network", "NetworkOptions"]


class NetworkOptions(Config):
    """Options that every network has.

    ``clamp`` cuts predictions below zero off, in physical units (`Model` does it).
    """

    clamp: bool = False


class Network(nn.Module, ABC):
    """Base of every network.

    Parameters
    ----------
    in_shape : (channels, height, width)
        Shape of one image.
    outputs : int
        Number of targets.
    options : NetworkOptions
        A validated instance of the class's ``Options``.

    Attributes
    ----------
    standardised : bool
        Whether images are standardised per pixel before the network sees them.
    channels_last : bool
        Whether it trains faster with the channels innermost, as far as measured (benchmarks/training.py).
    start : mapping
        Where the weights that it started from came from, when not from the seed; JSON values.
    """

    Options: ClassVar[type[NetworkOptions]]
    space: ClassVar[Space] = {}
    standardised: ClassVar[bool] = True
    channels_last: ClassVar[bool] = False
    head: nn.Module
    start: Mapping[str, Any] = {}
    cam_refusal: ClassVar[str] = "the network has no map of features: what it makes of the image has no pixels"

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: NetworkOptions) -> None:
        super().__init__()
        if len(in_shape) != 3 or min(in_shape) < 1 or outputs < 1:
            raise InputError(
                f"a network of shape {tuple(in_shape)} -> {outputs} cannot be built: "
                "expected (channels, height, width), all positive, and at least one target"
            )
        self.in_shape: tuple[int, int, int] = (in_shape[0], in_shape[1], in_shape[2])
        self.outputs, self.options = outputs, options

    @classmethod
    def published(cls) -> list[str]:
        """Return the names of published weights to start from."""
        return []

    def learn(self, shown: Iterable[Tensor], simulated: Tensor) -> None:
        """Take from training images what gradients do not teach.

        Parameters
        ----------
        shown : iterable of (S, C, H, W)
            Copies of the images, each perturbed as the training shows them; made when they are asked for. There is
            one at least.
        simulated : (S, C, H, W)
            The images as they are in the data set.
        """

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the (B, F) penultimate features of standardised images ``x`` (B, C, H, W)."""

    def noise(self, x: Tensor) -> Tensor:
        """Return the (B, N) measures of how noisy standardised images ``x`` are, where the network takes any."""
        return x.new_zeros((x.shape[0], 0))

    def spread(self, x: Tensor) -> Tensor:
        """Return how far apart several answers to standardised images ``x`` are; of one network none, (B, 0)."""
        return x.new_zeros((x.shape[0], 0))

    def cam_layer(self) -> nn.Module:
        """Return the layer that gives the last map of features, which `as_map` makes (B, F, h, w)."""
        raise NotImplementedError(self.no_cam())

    def cam_layers(self) -> list[nn.Module]:
        """Return every such layer that the answer is made of: one, but for an ensemble."""
        return [self.cam_layer()]

    def no_cam(self) -> str:
        """Return why it has no `cam_layer`; empty where it has one."""
        return self.cam_refusal

    def as_map(self, found: Tensor) -> Tensor:
        """Return what `cam_layer` gives, or its derivative, as (B, F, h, w)."""
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, T) standardised targets of standardised images ``x`` (B, C, H, W)."""
        return self.head(self.features(x))

    def measured(self, x: Tensor) -> Tensor:
        """Return what no weight changes of standardised images ``x``, (B, ...): where all is learnt, the images."""
        return x

    def from_measured(self, found: Tensor) -> Tensor:
        """Return the (B, T) standardised targets from what `measured` returned."""
        answer: Tensor = self(found)
        return answer


class BlockMean(nn.Module):
    """Mean over blocks of ``factor`` x ``factor`` pixels; zeros complete the blocks at the far edges.

    Written as a reshape so that its gradient stays exportable.
    """

    def __init__(self, factor: int, height: int, width: int) -> None:
        super().__init__()
        if factor > min(height, width):
            raise InputError(
                f"pool={factor} is larger than the image of {height} x {width} pixels: choose a smaller pool"
            )
        self.factor = factor
        self.rows, self.columns = -(-height // factor), -(-width // factor)
        self.pad = (0, self.columns * factor - width, 0, self.rows * factor - height)

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, C, rows, columns) block means of ``x`` (B, C, H, W)."""
        if self.factor == 1:
            return x
        if any(self.pad):
            x = torch.nn.functional.pad(x, self.pad)
        shape = (x.shape[0], x.shape[1], self.rows, self.factor, self.columns, self.factor)
        return x.reshape(shape).mean(dim=(3, 5))
