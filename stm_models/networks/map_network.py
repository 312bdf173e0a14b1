"""What a network is that answers with a map: standardised images in, one score per pixel out."""

from __future__ import annotations

from abc import abstractmethod
from itertools import product
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks.base import Network, NetworkOptions

__all__ = ["SYMMETRIES", "MapNetwork", "MapOptions", "same_size", "turn", "turn_back"]

SYMMETRIES: tuple[tuple[bool, bool, bool], ...] = tuple(product((False, True), (False, True), (False, True)))
"""The 8 symmetries of the square: whether axes are swapped, then y reversed, then x reversed."""


class MapOptions(NetworkOptions):
    """Options of every `MapNetwork`.

    Attributes
    ----------
    answer : "sigmoid" or "softmax"
        A score between 0 and 1 for each pixel by itself, or the softmax over all pixels divided by its maximum.
    eightfold : bool
        In eval mode answer with the mean over the 8 symmetries of the square.
    clamp : bool
        Always off: an answer lies between 0 and 1.
    """

    clamp: Literal[False] = False
    answer: Literal["sigmoid", "softmax"] = "sigmoid"
    eightfold: bool = False


class MapNetwork(Network):
    """Base of networks that keep resolution.

    Fully convolutional: images of any height and width go through, whatever ``in_shape`` says. The score of a
    pixel is a linear function, ``head``, of what `trunk` finds there.
    """

    Options: ClassVar[type[NetworkOptions]] = MapOptions
    options: MapOptions
    cam_refusal = "a pixel's score is a linear function of the last features there: the map would repeat the answer"

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: MapOptions) -> None:
        super().__init__(in_shape, outputs, options)
        if outputs != 1:
            raise InputError(f"{outputs} targets were asked of a network that answers with a map: expected one map")

    @abstractmethod
    def trunk(self, x: Tensor) -> Tensor:
        """Return the (B, F, H, W) features of every pixel of images ``x`` (B, C, H, W)."""

    def features(self, x: Tensor) -> Tensor:
        """Return mean and rms over the pixels of the trunk's features: (B, 2 F) for images ``x`` (B, C, H, W)."""
        found = self.trunk(x)
        rms = found.square().mean(dim=(2, 3)).add(1e-12).sqrt()
        return torch.cat([found.mean(dim=(2, 3)), rms], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, 1, H, W) logits of images ``x`` (B, C, H, W)."""
        return self.head(self.trunk(x))

    def answer(self, x: Tensor) -> Tensor:
        """Return scores between 0 and 1: (B, 1, H, W) for images ``x`` (B, C, H, W).

        Notes
        -----
        The maximum that a softmax is divided by counts as a constant in derivatives: at the highest peak the
        gradient is then that of its log-probability, where it would vanish otherwise.
        """
        if self.options.eightfold and not self.training:
            parts = [turn_back(self._probability(turn(x, symmetry)), symmetry) for symmetry in SYMMETRIES]
            probability = torch.stack(parts).mean(dim=0)
        else:
            probability = self._probability(x)
        if self.options.answer == "sigmoid":
            return probability
        return probability / probability.detach().amax(dim=(2, 3), keepdim=True)

    def _probability(self, x: Tensor) -> Tensor:
        logits = self(x)
        if self.options.answer == "sigmoid":
            return torch.sigmoid(logits)
        return torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape)


def turn(x: Tensor, symmetry: tuple[bool, bool, bool]) -> Tensor:
    """Apply one of `SYMMETRIES` to ``x`` (..., H, W): the same shape, or (..., W, H) where axes are swapped."""
    swap, y, x_axis = symmetry
    if swap:
        x = x.transpose(-2, -1)
    axes = [axis for axis, wanted in ((-2, y), (-1, x_axis)) if wanted]
    return x.flip(axes) if axes else x


def turn_back(x: Tensor, symmetry: tuple[bool, bool, bool]) -> Tensor:
    """Undo `turn`."""
    swap, y, x_axis = symmetry
    axes = [axis for axis, wanted in ((-2, y), (-1, x_axis)) if wanted]
    if axes:
        x = x.flip(axes)
    return x.transpose(-2, -1) if swap else x


def same_size(channels: int, width: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """Return a convolution from (B, channels, H, W) to (B, width, H, W); beyond the border lie zeros.

    ``kernel``, an odd number, and ``dilation`` are in px.
    """
    return nn.Conv2d(channels, width, kernel, padding=dilation * (kernel // 2), dilation=dilation)
