"""How an image looks at a glance, whatever a network makes of it: what novelty is told beside the features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stm_models.regression.components import principal_components

__all__ = ["Appearance"]

_BLOCKS = 16
_COMPONENTS = 20
_CHUNK = 128


class Appearance(nn.Module):
    """Coordinates of an image's block means on the principal components of the training's, and what these leave.

    A network looks at what its task needs: two images that differ elsewhere may have the same features. Seen together
    with features this tells images apart that neither does alone, e.g. a map of mere noise from a noisy map.

    Parameters
    ----------
    in_shape : (C, H, W) of the images
    components : int
        Number of principal components K.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    spread: Tensor

    def __init__(self, in_shape: tuple[int, int, int], components: int) -> None:
        super().__init__()
        self.block = _block_size(in_shape)
        means = (in_shape[0], in_shape[1] // self.block, in_shape[2] // self.block)
        self.register_buffer("pixels", torch.tensor(in_shape))
        self.register_buffer("mean", torch.zeros(means))
        self.register_buffer("scale", torch.ones(means))
        self.register_buffer("directions", torch.zeros(components, int(np.prod(means))))
        self.register_buffer("spread", torch.ones(components))

    @classmethod
    def fit(cls, images: NDArray[Any], seed: int = 0) -> Appearance:
        """Learn the components of training images (S, C, H, W).

        Raises
        ------
        InputError
            When there are fewer than two images, all are equal, or they hold NaN or infinity.
        """
        in_shape = (images.shape[1], images.shape[2], images.shape[3])
        size = _block_size(in_shape)
        parts = [
            functional.avg_pool2d(torch.from_numpy(np.ascontiguousarray(images[i : i + _CHUNK], np.float32)), size)
            for i in range(0, len(images), _CHUNK)
        ]
        means = torch.cat(parts).numpy()
        # Components that leave nothing would have only rounding errors to tell.
        found = principal_components(means, min(_COMPONENTS, max(1, means[0].size // 2)), seed)
        made = cls(in_shape, len(found.variances))
        made.mean.copy_(torch.from_numpy(found.mean))
        made.scale.copy_(torch.from_numpy(found.scale))
        made.directions.copy_(torch.from_numpy(found.vectors))
        made.spread.copy_(torch.from_numpy(np.sqrt(found.variances)))
        return made.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, K + 1) of images ``x`` (B, C, H, W): coordinates, and the rms of the rest."""
        z = ((functional.avg_pool2d(x, self.block) - self.mean) / self.scale).flatten(1)
        inside = z @ self.directions.T
        rest = (z - inside @ self.directions).square().mean(dim=1, keepdim=True).clamp_min(1e-12).sqrt()
        return torch.cat([inside / self.spread, rest], dim=1)


def _block_size(in_shape: tuple[int, int, int]) -> int:
    """Return the side, in pixels, of the blocks that images (C, H, W) are averaged over: 16 along the shorter side."""
    return max(1, min(in_shape[1:]) // _BLOCKS)
