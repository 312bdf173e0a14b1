"""What is measured on an FT-LDOS image before anything is learnt: its peaks, and its noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks.lattice_windows import SHAPES, PeakGrid, between, quadrant, stars, windows
from stm_models.networks.separable import Separable

__all__ = ["PeakMeasure"]

_LEAST = 1e-3  # of the height of the middle peak
_QUIET = 1e-9  # power of noise, in heights of the middle peak squared, that counts as none
_BANDS = (0.25, 0.8, 2.0, 4.0)  # 1/a
_NARROW, _OWN, _WIDE = 0.6, 1.0, 1.2  # widths of a peak


class PeakMeasure(nn.Module):
    """Heights and shapes of the moiré lattice's peaks, and how noisy the image is.

    Parameters
    ----------
    channels : int
    grid : PeakGrid
    symmetric : bool
        Average over peaks that the lattice's symmetry D6 makes alike, or that of the scan, where its noise decides;
        else over k and -k alone.
    shapes : bool
        Measure the curvature of peaks and the lattice's shear beside their heights.

    Attributes
    ----------
    count, noises : int
        Numbers measured of the peaks and of the noise.

    Notes
    -----
    Noise that was added to the image is averaged best by a peak's own Gaussian, over all that are alike. Noise of
    the map, which runs along its rows, is stronger near kx = 0 and as smooth as the peaks: narrow windows see less
    of it, stars of the scan's symmetry let the layers choose, and heights squared lose the bias that noise gives to
    a modulus. Offsets of the image's lines drop out of levelled windows; a gain and a blunt tip change all peaks
    alike and drop out of ratios to the middle one. How strong each kind of noise is tells what breaks k -> -k, which
    no map does, line by line and beside lines, and what lies between the peaks.
    """

    far: Tensor
    bands: Tensor

    def __init__(self, channels: int, grid: PeakGrid, *, symmetric: bool, shapes: bool) -> None:
        super().__init__()
        self.size, self.symmetric, self.shapes = (grid.height, grid.width), symmetric, shapes
        crystal, scan = (stars(grid, symmetry if symmetric else "C2") for symmetry in ("D6", "D2"))
        if len(crystal) < 2:
            raise InputError("the image holds no peak beside the middle one: expected a larger window of k")
        self.crystal, self.scan = len(crystal), len(scan)
        self.own, self.narrow = (self._windows(*windows(grid, scan, width)) for width in (_OWN, _NARROW))
        self.plain = self._windows(*windows(grid, crystal, _OWN, level=False))
        if shapes:
            *bent, odd = windows(grid, crystal, _WIDE, SHAPES)
            self.bent, self.odd = self._windows(*bent), self._windows(odd)
        for name, weights in zip(("far", "bands"), between(grid, _BANDS), strict=True):
            self.register_buffer(name, torch.from_numpy(weights), persistent=False)
        self.count = channels * (3 * self.scan + self.crystal * (5 if shapes else 1))
        self.noises = channels * (len(_BANDS) + 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is measured of the peaks (B, count) and of the noise (B, noises) of images ``x`` (B, C, H, W)."""
        even = self._mirrored(x, 1)
        own = self.own(even)
        middle = own[..., :1].clamp_min(_LEAST)
        squared = self.narrow(self._mirrored(x * x.abs(), 1))
        found = [self.plain(even), own / middle, self.narrow(even) / middle, squared / middle.square()]
        if self.shapes:
            shapes = self.bent(even)
            sheared = shapes[..., 2 * self.crystal :].square() + self.odd(self._mirrored(x, -1)).square()
            found += [shapes / middle, sheared / middle.square()]
        rows = -(-self.size[0] // 2)  # the others are the same again
        turned = x[:, :, :rows] - x[:, :, -rows:].flip(2, 3)
        lines = turned.mean(dim=3, keepdim=True)
        beside = turned - lines
        # Products: a power's gradient is a power, which takes ten times longer.
        powers = torch.cat(
            [
                (beside * beside).mean(dim=(2, 3))[..., None],
                (lines * lines).mean(dim=(2, 3))[..., None],
                (x * x * self.far).sum(dim=2) @ self.bands.T,
            ],
            dim=2,
        )
        noise = torch.cat([(powers / middle.square() / _QUIET + 1).log(), middle.log()], dim=2)
        return torch.cat(found, dim=2).flatten(1), noise.flatten(1)

    def _windows(self, *parts: NDArray[np.float64]) -> Separable:
        weights = np.concatenate(parts)
        return Separable(quadrant(weights) if self.symmetric else weights)

    def _mirrored(self, x: Tensor, sign: int) -> Tensor:
        """Return the first quarter (B, C, h, w) of the sum of the mirror images, those in one axis times ``sign``."""
        if not self.symmetric:
            return x
        rows, columns = (-(-side // 2) for side in self.size)
        upper, lower = x[:, :, :rows], x[:, :, -rows:].flip(2)
        left = upper[..., :columns] + sign * lower[..., :columns]
        right = lower[..., -columns:] + sign * upper[..., -columns:]
        return left + right.flip(3)
