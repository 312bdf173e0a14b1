"""How far an image lies from the training data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.regression.components import principal_components

__all__ = ["Novelty"]

_QUANTILES = ("0.5", "0.95", "0.99", "1.0")
_CHUNK = 128


class Novelty(nn.Module):
    r"""Distance to the training images; 1 is the median of held-out ones.

    Parameters
    ----------
    pixel_mean, pixel_scale : (C, H, W) float32, the image's unit
    components : (C*H*W, K) float32
        Orthonormal columns.
    variances : (K,) float32
        Variance of the training data along each column.
    residual : () float32
        Mean square per pixel that the components leave on held-out images.
    unit : () float32
        Distance, before scaling, that becomes 1.

    Notes
    -----
    With the standardised image z, its coordinates t and its residual r on the components,
    distance = sqrt(mean_k t_k^2 / variance_k + |r|^2 / <|r|^2>_held-out) / unit.
    """

    pixel_mean: Tensor
    pixel_scale: Tensor
    components: Tensor
    variances: Tensor
    residual: Tensor
    unit: Tensor

    def __init__(
        self,
        pixel_mean: Tensor,
        pixel_scale: Tensor,
        components: Tensor,
        variances: Tensor,
        residual: Tensor,
        unit: Tensor,
    ) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", pixel_mean)
        self.register_buffer("pixel_scale", pixel_scale)
        self.register_buffer("components", components)
        self.register_buffer("variances", variances)
        self.register_buffer("residual", residual)
        self.register_buffer("unit", unit)

    @classmethod
    def blank(cls, in_shape: tuple[int, int, int], components: int) -> Novelty:
        """Return an unfitted one, to be filled by ``load_state_dict``."""
        pixels = int(np.prod(in_shape))
        return cls(
            torch.zeros(in_shape),
            torch.ones(in_shape),
            torch.zeros(pixels, components),
            torch.ones(components),
            torch.ones(()),
            torch.ones(()),
        )

    @classmethod
    def fit(
        cls, train_images: NDArray[Any], heldout_images: NDArray[Any], seed: int = 0, components: int = 20
    ) -> tuple[Novelty, dict[str, float]]:
        """Fit to training images and scale by held-out ones.

        Parameters
        ----------
        train_images, heldout_images : (S, C, H, W) floating
        seed : int
            Of the randomised decomposition.
        components : int
            Most principal components to keep.

        Returns
        -------
        novelty : Novelty
        quantiles : dict of str to float
            Of the distance on the held-out images: ``"0.5"`` (1 by construction), ``"0.95"``, ``"0.99"``,
            ``"1.0"``.

        Raises
        ------
        InputError
            When there are too few images, their shapes differ or they hold NaN or infinity.
        """
        if len(heldout_images) == 0 or heldout_images.shape[1:] != train_images.shape[1:]:
            raise InputError(
                f"held-out images have shape {heldout_images.shape}: expected at least one of the training "
                f"images' shape {train_images.shape[1:]}"
            )
        if not np.isfinite(heldout_images).all():
            raise InputError("the held-out images hold NaN or infinity: leave those samples out")
        # All directions of few features would leave a residual of rounding errors alone, and divide by it.
        most = max(1, math.prod(train_images.shape[1:]) // 2)
        fitted = principal_components(train_images, min(components, most), seed)
        novelty = cls(
            torch.from_numpy(fitted.mean),
            torch.from_numpy(fitted.scale),
            torch.from_numpy(np.ascontiguousarray(fitted.vectors.T)),
            torch.from_numpy(fitted.variances),
            torch.ones(()),
            torch.ones(()),
        ).eval()
        parts = [
            novelty._parts(torch.from_numpy(np.ascontiguousarray(heldout_images[i : i + _CHUNK], np.float32)))
            for i in range(0, len(heldout_images), _CHUNK)
        ]
        inside, outside = (torch.cat(column) for column in zip(*parts, strict=True))
        novelty.residual.copy_(outside.mean().clamp_min(torch.finfo(torch.float32).tiny))
        distances = torch.sqrt(inside + outside / novelty.residual)
        novelty.unit.copy_(distances.quantile(0.5).clamp_min(1e-12))
        scaled = (distances / novelty.unit).double()
        return novelty, {name: float(scaled.quantile(float(name))) for name in _QUANTILES}

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = ((x - self.pixel_mean) / self.pixel_scale).flatten(1)
        t = z @ self.components
        outside = (z - t @ self.components.T).square().mean(dim=1)
        return (t.square() / self.variances).mean(dim=1), outside

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B,) float32 distances of images ``x`` (B, C, H, W) float32."""
        inside, outside = self._parts(x)
        return torch.sqrt(inside + outside / self.residual) / self.unit
