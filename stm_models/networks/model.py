"""A network in physical units on both sides."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.networks.base import Network
from stm_models.networks.map_network import MapNetwork
from stm_models.regression.scaling import pixel_statistics, target_statistics

__all__ = ["Model"]


class Model(nn.Module):
    """Standardise images per pixel, apply the network, rescale its outputs to the targets' units.

    A network that answers with a map takes images of any height and width as they are and answers with scores
    between 0 and 1: nothing is standardised or rescaled, and ``pixel_mean`` only tells the shape it was made for.

    Parameters
    ----------
    network : Network
    pixel_mean, pixel_scale : (C, H, W) float32, the image's unit
    target_mean, target_scale : (T,) float32, the targets' units
    """

    pixel_mean: Tensor
    pixel_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self,
        network: Network,
        pixel_mean: Tensor,
        pixel_scale: Tensor,
        target_mean: Tensor,
        target_scale: Tensor,
    ) -> None:
        super().__init__()
        self.network = network
        self.clamp = network.options.clamp
        self.register_buffer("pixel_mean", pixel_mean)
        self.register_buffer("pixel_scale", pixel_scale)
        self.register_buffer("target_mean", target_mean)
        self.register_buffer("target_scale", target_scale)

    @classmethod
    def for_data(
        cls,
        network: Network,
        images: NDArray[Any],
        targets: NDArray[Any],
        *,
        standardise: bool = True,
        simulated: NDArray[Any] | None = None,
        further: Iterable[NDArray[Any]] = (),
    ) -> Model:
        """Wrap a network with the statistics of training samples, and let it learn what gradients do not teach.

        Parameters
        ----------
        network : Network
        images : (S, C, H, W)
        targets : (S, T)
        standardise : bool
            Without, and for networks that answer with a map, means are zero and scales one; for networks that take
            images as they are, those of the images alone.
        simulated : (S, C, H, W), optional
            The images before they were perturbed, where they were.
        further : iterable of (S, C, H, W)
            Other perturbed copies.

        Raises
        ------
        InputError
            When the data are empty or hold NaN or infinity.
        """
        if not standardise or isinstance(network, MapNetwork):
            return cls.blank(network)
        statistics = (*pixel_statistics(images), *target_statistics(targets))
        model = cls(network, *(torch.from_numpy(np.ascontiguousarray(part)) for part in statistics))
        if not network.standardised:
            model.pixel_mean.zero_()
            model.pixel_scale.fill_(1.0)
        seen = (
            model.standardise(torch.from_numpy(np.ascontiguousarray(part, np.float32)))
            for part in chain([images if simulated is None else simulated, images], further)
        )
        simple = next(seen)
        network.learn(seen, simple)
        return model

    @classmethod
    def blank(cls, network: Network) -> Model:
        """Wrap ``network`` with zero means and unit scales, to be filled by ``load_state_dict``."""
        pixels, targets = network.in_shape, (network.outputs,)
        return cls(network, torch.zeros(pixels), torch.ones(pixels), torch.zeros(targets), torch.ones(targets))

    def standardise(self, x: Tensor) -> Tensor:
        """Return images ``x`` (B, C, H, W) in units of the training spread."""
        if isinstance(self.network, MapNetwork):
            return x
        return (x - self.pixel_mean) / self.pixel_scale

    def scale_targets(self, y: Tensor) -> Tensor:
        """Return targets ``y`` as the loss takes them: (B, T) in units of the training spread, maps as they are."""
        if isinstance(self.network, MapNetwork):
            return y
        return (y - self.target_mean) / self.target_scale

    def features(self, x: Tensor) -> Tensor:
        """Return the network's (B, F) penultimate features of images ``x`` (B, C, H, W)."""
        return self.network.features(self.standardise(x))

    def noise(self, x: Tensor) -> Tensor:
        """Return the network's (B, N) measures of the noise of images ``x`` (B, C, H, W); N may be 0."""
        return self.network.noise(self.standardise(x))

    def apart(self, x: Tensor) -> Tensor:
        """Return the standard deviation of an ensemble's members on images ``x`` (B, C, H, W), as the network has it.

        (B, T) over the spread of the targets, (B, 1, H, W) of maps, and (B, 0) of a single network.
        """
        return self.network.spread(self.standardise(x))

    def in_units(self, apart: Tensor) -> Tensor:
        """Return what `apart` found of an ensemble in the targets' units; maps as they are."""
        return apart if isinstance(self.network, MapNetwork) else apart * self.target_scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, T) float32 targets, in their units, of images ``x`` (B, C, H, W) float32.

        A network that answers with a map gives (B, 1, H, W) scores between 0 and 1.
        """
        if isinstance(self.network, MapNetwork):
            return self.network.answer(x)
        prediction = self.network(self.standardise(x)) * self.target_scale + self.target_mean
        return prediction.clamp_min(0.0) if self.clamp else prediction
