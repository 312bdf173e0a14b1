"""The network contrast: what turning and shifting a lattice does not change, then two linear layers."""

import torch
from torch import nn

from stm_models.networks.base import Network, NetworkOptions
from stm_models.search import Choice


class ContrastOptions(NetworkOptions):
    """Options of `Contrast`."""

    hidden: int = 32


class Contrast(Network):
    """Mean and mean square over the pixels of each channel."""

    Options = ContrastOptions
    standardised = False
    space = {"hidden": Choice((16, 32, 64))}  # noqa: RUF012

    def __init__(self, in_shape, outputs, options):
        super().__init__(in_shape, outputs, options)
        channels = in_shape[0]
        self.register_buffer("mean", torch.zeros(2 * channels))
        self.register_buffer("scale", torch.ones(2 * channels))
        self.body = nn.Sequential(nn.Linear(2 * channels, options.hidden), nn.GELU())
        self.head = nn.Linear(options.hidden, outputs)

    def learn(self, shown, simulated):
        """Bring what is measured of the training images to one scale."""
        found = self.moments(next(iter(shown)))
        self.mean.copy_(found.mean(0))
        self.scale.copy_(found.std(0) + 1e-6)

    def moments(self, x):
        """Return the (B, 2 C) means and mean squares of images ``x`` (B, C, H, W)."""
        return torch.cat([x.mean(dim=(2, 3)), (x * x).mean(dim=(2, 3))], dim=1)

    def features(self, x):
        """Return the (B, hidden) features of ``x`` (B, C, H, W)."""
        return self.body((self.moments(x) - self.mean) / self.scale)
