"""An instrument's noise drawn fast: what the maps' transforms become, from spectra computed once.

To train on. Models are judged on `stm_models.physics.instrument.measure`, map by map, which takes ten times longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.instrument import Instrument, scan_noise
from stm_models.physics.moire.fourier import mirrored, raster_transform
from stm_models.tasks.hubbard.imaging import NM, Imaging

__all__ = ["QuickInstrument", "Spectrum", "Transform"]

_NOISES = 192
_ROWS = 96
_CHANGES = 48

Complex = NDArray[np.complex64]


@dataclass(frozen=True)
class Spectrum:
    """The transform of a map under its envelope.

    Attributes
    ----------
    upper : ((n + 1) // 2, n) complex64
        Rows ky >= 0, over F(0).
    contrast : float
        Standard deviation of the map over F(0), the sum under the envelope.
    """

    upper: Complex
    contrast: float


@dataclass(frozen=True)
class Transform:
    """Fourier transform of maps under the envelope of their images."""

    imaging: Imaging

    def spectrum(self, map_: NDArray[np.floating]) -> Spectrum:
        """Transform a map (Y, X) without noise."""
        upper, total = self(map_)
        return Spectrum(upper / np.float32(total), float(map_[self.imaging.scanned].std()) / total)

    def __call__(self, map_: NDArray[np.floating]) -> tuple[Complex, float]:
        """Return the rows ky >= 0 of the transform of a map (Y, X), and F(0)."""
        weights = map_ * self.envelope
        found = raster_transform(self._centres, self._centres, weights, self.imaging.atoms.grid)
        return found.astype(np.complex64), float(weights.sum())

    @cached_property
    def envelope(self) -> NDArray[np.float64]:
        """Weights (Y, X) of the pixels."""
        squared = self._centres[:, None] ** 2 + self._centres**2
        wide = self.imaging.atoms.envelope
        envelope: NDArray[np.float64] = np.exp(-squared / (2 * wide**2)) * (squared <= self.imaging.radius**2)
        return envelope

    @cached_property
    def _centres(self) -> NDArray[np.float64]:
        pixels = self.imaging.pixels
        return np.asarray((np.arange(pixels) - (pixels - 1) / 2) * (2 * self.imaging.radius / pixels), np.float64)


class QuickInstrument:
    """Images as an `Instrument` gives them, whose noise comes from a store.

    Everything but the modulus is linear in the map. Noise is proportional to the signal, and maps of one structure
    are alike: the noise of one of them serves for all. The sum of two of some hundred stored noises, with random signs,
    is noise of the same colour again; a network that sees one store too often learns its noises by heart, and takes
    away those that it knows (R2 .985 on its images and .965 on an instrument's). Left out: drift, and spikes, which are
    removed before the transform.

    Parameters
    ----------
    transform : Transform
    example : (Y, X) floating
        A map of the structure.
    instrument : Instrument
    rng : numpy.random.Generator
        Of the store.
    """

    def __init__(
        self, transform: Transform, example: NDArray[np.floating], instrument: Instrument, rng: np.random.Generator
    ) -> None:
        self._transform, self._imaging, self._instrument = transform, transform.imaging, instrument
        rows, columns = example.shape
        total = float((example * transform.envelope).sum())
        slopes = rng.uniform(*instrument.slope, _NOISES)
        self._noises = self._store(
            [example * scan_noise((1, rows, columns), slope, 0.0, rng)[0] for slope in slopes], total
        )
        self._rows = self._store([np.tile(rng.standard_normal((rows, 1)), columns) for _ in range(_ROWS)], 1.0)
        order = np.arange(rows * columns).reshape(rows, columns)
        starts = rng.integers(rows * columns, size=_CHANGES)
        self._changes = self._store([example * (order >= start) for start in starts], total)

    def draw(self, clean: Sequence[Spectrum], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return images (B, n, n), |F|/|F(0)|, of maps at B biases as they would have been recorded."""
        its = self._instrument
        blur = self._blur(rng) if rng.random() < its.blur_probability else None
        change = rng.uniform(*its.change) - 1 if rng.random() < its.change_probability else 0.0
        start, noise, offset = int(rng.integers(_CHANGES)), rng.uniform(*its.noise), rng.uniform(*its.row_offset)
        shared = [(number, strength * math.sqrt(its.correlation)) for number, strength in self._any(rng)]
        images = []
        for one in clean:
            own = [(number, strength * math.sqrt(1 - its.correlation)) for number, strength in self._any(rng)]
            parts = [(self._changes, start, change)] if change else []
            for first, second in (shared, own):
                parts += [(self._noises, first[0], noise * first[1])]
                parts += [(self._rows, second[0], offset * one.contrast * second[1])]
            upper, total = one.upper if blur is None else one.upper * blur, 1.0
            for store, number, strength in parts:
                upper = upper + np.float32(strength) * store[number][0]
                total += strength * store[number][1]
            modulus = mirrored(np.abs(upper), self._imaging.grid.n, conjugate=False)
            images.append(modulus / (np.float32(abs(total)) * self._divisor))
        return np.stack(images)

    @staticmethod
    def _any(rng: np.random.Generator) -> tuple[tuple[int, float], tuple[int, float]]:
        """Choose a noise and offsets of rows from the store, and their signs."""
        noise, rows = int(rng.integers(_NOISES)), int(rng.integers(_ROWS))
        return (noise, float(rng.choice((-1, 1)))), (rows, float(rng.choice((-1, 1))))

    @cached_property
    def _divisor(self) -> NDArray[np.float32]:
        return self._imaging.atoms.divisor.astype(np.float32)

    def _store(self, maps: list[NDArray[np.floating]], total: float) -> list[tuple[Complex, float]]:
        found = (self._transform(one) for one in maps)
        return [(upper / np.float32(total), own / total) for upper, own in found]

    def _blur(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the transform of an elliptical tip on the rows ky >= 0."""
        its, grid = self._instrument, self._imaging.atoms.grid
        narrow = rng.uniform(*its.blur_nm) / NM
        wide, angle = narrow * rng.uniform(*its.blur_ratio), rng.uniform(0, math.pi)
        kx, ky = grid.kx.astype(np.float32), grid.ky[grid.n // 2 :, None].astype(np.float32)
        along = (kx * math.cos(angle) + ky * math.sin(angle)) * wide
        across = (ky * math.cos(angle) - kx * math.sin(angle)) * narrow
        found: NDArray[np.float32] = np.exp(-(along**2 + across**2) / 2)
        return found
