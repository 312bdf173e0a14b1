"""Detectors without training, which every model has to beat: a blob filter and a matched filter.

A detector is called with ``(stack, biases, pixel)``: a prepared stack (V, H, W), its biases (V,) in V and the size of
a pixel in Å. It returns a score map (H, W), float64, whose maxima are impurities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import next_fast_len

from stm_models.errors import InputError, unknown
from stm_models.physics.surface import materials

__all__ = ["DETECTORS", "Detector", "LaplacianOfGaussian", "MatchedFilter", "create"]

Floats = NDArray[np.float64]
_SIGNS = ("dark", "bright", "both")


class Detector(Protocol):
    """Anything that makes a score map of a stack."""

    def __call__(self, stack: ArrayLike, biases: ArrayLike, pixel: float) -> Floats:
        """Return the score map (H, W)."""


@dataclass(frozen=True)
class LaplacianOfGaussian:
    """Curvature of the smoothed mean map: finds the spot on an impurity.

    Attributes
    ----------
    width : float, px
        Standard deviation of the Gaussian.
    sign : {"dark", "bright", "both"}
        Of the spots. Impurities absorb, so most are dark; ``both`` also finds the rings of either.
    """

    width: float = 1.5
    sign: str = "dark"

    def __post_init__(self) -> None:
        if self.sign not in _SIGNS:
            raise unknown("sign of the spots", self.sign, _SIGNS)

    def __call__(self, stack: ArrayLike, biases: ArrayLike, pixel: float) -> Floats:
        """width² Laplacian(Gaussian * mean map), its negative or its modulus: (H, W). Biases and pixel do not matter.

        Raises
        ------
        InputError
            For a stack of another shape or not finite.
        """
        from skimage.filters import gaussian, laplace

        smooth = gaussian(_stack(stack).mean(axis=0), self.width, mode="reflect", preserve_range=True)
        # skimage's Laplacian is positive at a maximum.
        curvature: Floats = laplace(smooth) * self.width**2
        return np.abs(curvature) if self.sign == "both" else curvature * (1.0 if self.sign == "bright" else -1.0)


@dataclass(frozen=True)
class MatchedFilter:
    """Friedel oscillations of unknown phase: the modulus of the overlaps with a cosine and a sine, over all biases.

    Attributes
    ----------
    material : str
        Its band gives k(V).
    exponent : float
        p of the decay (r + cutoff)^-p.
    cutoff : float, px
        eps.
    core : float, px
        Where the kernel begins: closer to an impurity the waves are not universal. 0 takes all of it.
    radius : float, px
        Where it ends.
    """

    material: str = "Au(111)"
    exponent: float = 2.0
    cutoff: float = 1.0
    core: float = 1.2
    radius: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.core < self.radius - 1:
            raise InputError(f"kernel from {self.core} to {self.radius} px: expected 0 <= core < radius - 1")

    def __call__(self, stack: ArrayLike, biases: ArrayLike, pixel: float) -> Floats:
        """Mean over biases of the modulus, each map in units of its rms: (H, W).

        Raises
        ------
        InputError
            For biases at or below the band bottom, or of another number than the maps.
        """
        maps = _stack(stack)
        k = np.atleast_1d(materials.create(self.material).wave_number(biases, pixel))
        if k.shape != (len(maps),):
            raise InputError(f"biases have shape {k.shape} for {len(maps)} maps: expected one bias for each map")
        strength = np.sqrt((maps**2).mean(axis=(1, 2)))
        maps = maps / np.where(strength > 0, strength, 1.0)[:, None, None]
        score = np.zeros(maps.shape[1:])
        for values, number in zip(maps, k, strict=True):
            score += np.abs(_correlate(values, self.kernel(float(number))))
        return score / len(maps)

    def kernel(self, wave_number: float) -> NDArray[np.complex128]:
        """exp(2 i k r) / (r + cutoff)^p from core to radius, both parts without mean, of norm 1: (n, n) complex128.

        The wave number is k in rad/px.
        """
        reach = int(np.ceil(self.radius))
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        r = np.hypot(y, x)
        inside = (r <= self.radius) & (r >= self.core)
        wave = np.where(inside, np.exp(2j * wave_number * r) / (r + self.cutoff) ** self.exponent, 0)
        wave -= inside * (wave.sum() / inside.sum())
        parts = [part / np.sqrt((part**2).sum()) for part in (wave.real, wave.imag)]
        return parts[0] + 1j * parts[1]


DETECTORS: Mapping[str, Callable[..., Detector]] = MappingProxyType(
    {"laplacian": LaplacianOfGaussian, "matched_filter": MatchedFilter}
)
"""Every detector by its name."""


def create(name: str, **options: Any) -> Detector:
    """Return a detector by its name.

    Raises
    ------
    InputError
        For an unknown name, with the choices.
    """
    if name not in DETECTORS:
        raise unknown("detector", name, DETECTORS)
    return DETECTORS[name](**options)


def _stack(stack: ArrayLike) -> Floats:
    maps = np.asarray(stack, np.float64)
    if maps.ndim != 3 or not maps.size or not np.all(np.isfinite(maps)):
        raise InputError(f"stack has shape {maps.shape}: expected (bias, y, x) of finite values")
    return maps


def _correlate(values: Floats, kernel: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Overlap of a symmetric kernel with the map about every pixel, zero outside the map: (H, W) complex128."""
    size = [next_fast_len(n + m - 1) for n, m in zip(values.shape, kernel.shape, strict=True)]
    both = np.fft.ifft2(np.fft.fft2(values, size) * np.fft.fft2(kernel, size))
    start = [m // 2 for m in kernel.shape]
    return both[start[0] : start[0] + values.shape[0], start[1] : start[1] + values.shape[1]]
