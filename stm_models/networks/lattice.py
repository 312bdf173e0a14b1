"""A network for FT-LDOS images that looks where physics puts the signal: at the peaks of the moiré lattice."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks.base import Network, NetworkOptions
from stm_models.networks.lattice_windows import ODD, PARTS, PeakGrid, quadrant, stars, windows
from stm_models.search import Choice, Range, Space

__all__ = ["Lattice", "LatticeOptions"]

_LIMIT = 8.0  # standard deviations; what lies farther out counts as that far
_LEAST = 1e-3  # of the height of the middle peak
_CHUNK = 256
Pair = tuple[float, float]


class LatticeOptions(NetworkOptions):
    """Options of `Lattice`; ``hidden`` may be written as ``[256, 128]`` or ``"256-128"``.

    Attributes
    ----------
    vectors : ((x, y), (x, y)) or None, 1/a
        Reciprocal lattice vectors; the task gives them.
    pixel : (x, y) or None, 1/a
    peak : float or None, 1/a
        Width of a peak.
    window : float
        Width of the windows, in widths of a peak.
    symmetric : bool
        Average over the twelve peaks that D6 makes alike, else over k and -k.
    shapes : bool
        Weigh the curvature of peaks and the lattice's shear beside their heights.
    """

    vectors: tuple[Pair, Pair] | None = None
    pixel: Pair | None = None
    peak: float | None = Field(None, gt=0)
    window: float = Field(1.2, ge=0.3, le=4)
    symmetric: bool = True
    shapes: bool = True
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field((256, 128), min_length=1, max_length=8)
    dropout: float = Field(0.0, ge=0, lt=1)

    @field_validator("hidden", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return value.split("-") if isinstance(value, str) else value


class Lattice(Network):
    """Heights of the lattice's peaks over that of the middle one, averaged over symmetric ones, then linear layers.

    Notes
    -----
    Gain and a blunt tip change all peaks alike and drop out of the ratio; offsets of scan lines drop out of each
    window. A small shear of the lattice cancels in the mean over a star to first order, but for what the lines'
    background leaves; the shear, its square and the curvature of the peaks tell the layers about the rest.
    """

    Options = LatticeOptions
    standardised: ClassVar[bool] = False
    space: ClassVar[Space] = {"hidden": Choice(("128-64", "256-128")), "window": Range(0.8, 1.6)}
    options: LatticeOptions
    even: Tensor
    odd: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: LatticeOptions) -> None:
        super().__init__(in_shape, outputs, options)
        if options.vectors is None or options.pixel is None or options.peak is None:
            raise InputError(
                "the network lattice has to know the lattice (vectors, pixel, peak): give a data set of FT-LDOS "
                "images of one structure, or another network"
            )
        grid = PeakGrid(in_shape[1], in_shape[2], options.pixel, np.array(options.vectors), options.peak)
        groups = stars(grid, symmetric=options.symmetric)
        if len(groups) < 2:
            raise InputError("the image holds no peak beside the middle one: expected a larger window of k")
        weighed = windows(grid, groups, options.window)
        parts = PARTS if options.shapes else PARTS[:1]
        self.stars = len(groups)
        for name, chosen in (("even", set(parts) - set(ODD)), ("odd", set(parts) & set(ODD))):
            several = [self._folded(weighed[part]) for part in parts if part in chosen]
            own = np.concatenate(several) if several else np.zeros((0, 1), np.float32)
            self.register_buffer(name, torch.from_numpy(own), persistent=False)
        count = in_shape[0] * ((self.stars - 1) + (4 * self.stars if options.shapes else 0))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        layers: list[nn.Module] = []
        for hidden in options.hidden:
            layers += [nn.Linear(count, hidden), nn.GELU(), nn.Dropout(options.dropout)]
            count = hidden
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(count, outputs)

    def learn(self, images: Tensor) -> None:
        """Take the mean and spread of what is weighed from training images (S, C, H, W)."""
        with torch.no_grad():
            found = torch.cat([self.weigh(part) for part in images.split(_CHUNK)]).double()
        self.mean.copy_(found.mean(dim=0))
        self.scale.copy_(found.std(dim=0, unbiased=False).clamp_min(1e-6))

    def weigh(self, x: Tensor) -> Tensor:
        """Return heights and shapes (B, K) of the peaks of images ``x`` (B, C, H, W), over the middle peak's height."""
        found = self._even(x) @ self.even.T
        if self.options.shapes:
            found = torch.cat([found, self._odd(x) @ self.odd.T], dim=2)
        middle = found[..., :1].clamp_min(_LEAST)
        found = found / middle
        heights = found[..., 1 : self.stars]
        if not self.options.shapes:
            return heights.flatten(1)
        radial, tangential, *shear = (found[..., n * self.stars : (n + 1) * self.stars] for n in (1, 2, 3, 4))
        square = shear[0].square() + shear[1].square()
        return torch.cat([heights, radial, tangential, shear[0], square], dim=2).flatten(1)

    def _folded(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        return quadrant(weights, *self.in_shape[1:]) if self.options.symmetric else weights

    def _even(self, x: Tensor) -> Tensor:
        if not self.options.symmetric:
            return x.flatten(2)
        return self._quarter(x + x.flip(3) + x.flip(2) + x.flip(2, 3))

    def _odd(self, x: Tensor) -> Tensor:
        if not self.options.symmetric:
            return x.flatten(2)
        return self._quarter(x - x.flip(3) - x.flip(2) + x.flip(2, 3))

    def _quarter(self, x: Tensor) -> Tensor:
        return x[:, :, : -(-x.shape[2] // 2), : -(-x.shape[3] // 2)].flatten(2)

    def features(self, x: Tensor) -> Tensor:
        """Return the (B, last hidden width) features of images ``x`` (B, C, H, W), as they are."""
        return self.body(((self.weigh(x) - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT))
