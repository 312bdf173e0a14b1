"""What a network costs: how many parameters it has, and how many operations one image takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stm_models.networks import registry

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """Cost of a network for images of one shape.

    Attributes
    ----------
    parameters : int
        Trainable numbers, the head's for one target included.
    flops : int
        Floating-point operations of one image's forward pass in products (linear layers, convolutions,
        attention): each multiplication and each addition counts, so that a multiply-add is two.
    features : int
        Length of the feature vector.
    """

    parameters: int
    flops: int
    features: int


def cost(name: str, shape: tuple[int, int, int], options: Mapping[str, Any] | None = None) -> Cost:
    """Return the cost of network ``name`` for images (C, H, W), without computing where the network allows it.

    ``options``: overrides of the network's defaults.

    Raises
    ------
    InputError
        For an unknown network or option, or images that it cannot take.
    """
    try:
        with torch.device("meta"):
            return _measure(name, shape, options)
    except (NotImplementedError, RuntimeError):  # not every network can be made on the meta device
        return _measure(name, shape, options)


def _measure(name: str, shape: tuple[int, int, int], options: Mapping[str, Any] | None) -> Cost:
    network = registry.create(name, shape, 1, options, blank=True).eval().requires_grad_(False)
    device = next(network.parameters()).device
    image = torch.zeros((1, *shape), device=device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad():
        features = network.features(image).shape[1]
        with counter:
            network(image)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops(), features)
