"""Networks by name for tests: those that the data tell something get it here; and images to show them."""

import numpy as np
import torch

from stm_models.networks import registry

FAMILIES = [
    "conv", "fc", "fieldnet", "lattice", "linear", "mlp", "resnet18", "timm:mobilenetv3_small_050",
    "timm:test_convnext", "timm:test_efficientnet", "timm:test_vit", "voltage_attention",
]  # fmt: skip
"""One network of each kind."""

OPTIONS = {"lattice": {"vectors": [[5.0, 0.0], [2.5, 4.33]], "pixel": [1.0, 1.0], "peak": 0.9}}
"""What a data set would say of the images, for any of at least 16 x 16 pixels."""


def answers_with_map(name):
    """Whether the network answers with a map instead of numbers."""
    return "answer" in registry.default_options(name)


def create(name, in_shape, outputs, options=None, **more):
    """`registry.create` with what the network has to know."""
    return registry.create(name, in_shape, outputs, {**OPTIONS.get(name, {}), **(options or {})}, **more)


def nudge(network, seed=5):
    """Move the weights a little, away from where initialisation puts many of them: to zero and one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


def images(count, seed, shape=(2, 32, 32)):
    """Three peaks of random heights in each channel, float32 (count, *shape)."""
    channels, height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rng = np.random.default_rng(seed)
    heights = rng.gamma(2.0, 0.5, (count, channels, 3, 1, 1))
    peaks = np.stack([np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.05) for a, b in ((0, 0), (0.5, 0.1), (-0.5, -0.1))])
    return (0.3 + (heights * peaks).sum(axis=2) + 0.1 * rng.normal(size=(count, *shape))).astype(np.float32)
