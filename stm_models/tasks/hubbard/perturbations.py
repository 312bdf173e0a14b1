"""The perturbation sets of the hubbard task: the paper's four on the image, and an instrument's on the map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.physics.instrument import Instrument, measure
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid
from stm_models.physics.raster import form_factor, rasterise
from stm_models.signal.real_map import to_ft_image
from stm_models.tasks.base import RawMap
from stm_models.tasks.hubbard.structure import GEOMETRY, ImagedAtoms, imaged_atoms
from stm_models.tasks.perturbation import CLEAN, Perturbation, Remake, Step

__all__ = ["SETS", "Imaging", "instrument", "observed"]

Array = NDArray[Any]

_NM = LATTICE_CONSTANT / 10
_WIDTH = 0.2  # a: standard deviation of an atom, 0.49 Å
_PIXEL = 0.05  # nm, well within the 0.097 nm that the window along ky needs
_RIM = 1.0  # a: room for the outermost atoms' tails


@dataclass(frozen=True)
class Imaging:
    """How a map is transformed, so that a clean one gives the very image of its atoms' Fourier sum.

    A Gaussian atom (standard deviation w) under a Gaussian envelope (s) is again a Gaussian: of width w s / S,
    at s^2 / S^2 of its place, under an envelope of S = sqrt(s^2 + w^2). Hence the map gets the envelope
    s = sqrt(S^2 - w^2), S being the model's, its k grid is S^2 / s^2 wider, and the image is divided by the
    narrower Gaussian's `form_factor`, which raises noise at the Bragg peaks three times above that at k = 0.
    What is left out is the tail of an atom beyond the field: below 1e-6 of the image with a rim of 1 a.
    """

    radius: float
    envelope: float
    grid: KGrid
    divisor: NDArray[np.float64]

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Imaging:
        """Read a data set's ``input``: its k window, and radius and envelope of the disc.

        Raises
        ------
        InputError
            When it does not say, e.g. for images from elsewhere.
        """
        missing = [name for name in ("width", "kx_max", "ky_max", "envelope", "radius") if spec.get(name) is None]
        if missing:
            raise InputError(
                f"the data set does not say how its images were made ({', '.join(missing)} missing), so they cannot be "
                "made again from maps: give a data set made by `stm simulate`"
            )
        wide = spec["envelope"] * spec["radius"]
        narrow = math.sqrt(wide**2 - _WIDTH**2)
        stretch = (wide / narrow) ** 2
        grid = KGrid(spec["width"], spec["kx_max"] * stretch, spec["ky_max"] * stretch)
        radius = spec["radius"] + _RIM
        return cls(radius, narrow / radius, grid, form_factor(grid.kx, grid.ky, _WIDTH * narrow / wide))

    @property
    def pixels(self) -> int:
        """Side of the map in pixels of at most half an ångström."""
        return math.ceil(2 * self.radius * _NM / _PIXEL)

    @property
    def pixel_nm(self) -> float:
        """Side of a pixel in nm."""
        return 2 * self.radius * _NM / self.pixels

    @property
    def scanned(self) -> NDArray[np.bool_]:
        """Which pixels (Y, X) lie on the disc that holds atoms."""
        centres = (np.arange(self.pixels) + 0.5) / self.pixels * 2 * self.radius - self.radius
        disc: NDArray[np.bool_] = np.hypot(centres[:, None], centres) <= self.radius - _RIM
        return disc

    def maps(self, atoms: ImagedAtoms, ldos: Array) -> NDArray[np.float64]:
        """Real-space maps (B, Y, X), states per eV and a^2, of an ``ldos`` (B, sites)."""
        values = np.atleast_2d(np.asarray(ldos, np.float64))[:, atoms.copies] * atoms.layer_weight
        side = 2 * self.radius
        return rasterise(atoms.positions, values, side=side, pixels=self.pixels, width=_WIDTH)

    def images(self, maps: Array) -> NDArray[np.float32]:
        """Return the FT images (B, n, n) of ``maps`` (B, Y, X), by the way that a real map takes."""
        size = 2 * self.radius * _NM
        pictures = [
            to_ft_image(RawMap(one[None], (size, size), None, "map"), self.grid,
                        envelope=self.envelope, radius=self.radius)[0]
            for one in maps
        ]  # fmt: skip
        return (np.stack(pictures) / self.divisor).astype(np.float32)


def observed(attributes: Mapping[str, Any], noise: Instrument | None, *, kept: int = 0) -> Remake:
    """Return what makes a sample's image anew from its ``ldos``, by way of a real-space map.

    Parameters
    ----------
    attributes : mapping
        Of the data set: ``input`` and ``config``.
    noise : Instrument or None
        What happens to the map; ``None``: nothing, for comparison.
    kept : int
        So many maps are kept, in single precision, for whoever asks for the same samples again and again.
    """
    imaging = Imaging.of(attributes["input"])
    scanned = imaging.scanned
    field = lru_cache(maxsize=4)(lambda *place: imaged_atoms(attributes, dict(zip(GEOMETRY, place, strict=True))))

    def maps_of(place: tuple[float, ...], ldos: bytes, channels: int) -> NDArray[Any]:
        maps = imaging.maps(field(*place), np.frombuffer(ldos).reshape(channels, -1))
        return maps.astype(np.float32) if kept else maps

    known = lru_cache(maxsize=kept)(maps_of) if kept else maps_of

    def remake(
        coordinates: Mapping[str, Any], arrays: Mapping[str, Array], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        ldos = np.atleast_2d(np.asarray(arrays["ldos"], np.float64))
        maps = known(tuple(float(coordinates[name]) for name in GEOMETRY), ldos.tobytes(), len(ldos))
        if noise is not None:
            maps = measure(maps, imaging.pixel_nm, noise, rng, where=scanned)
        return imaging.images(maps)

    return remake


def instrument(attributes: Mapping[str, Any], *, kept: int = 0) -> Remake:
    """See `observed`: with the noise that was measured on real files."""
    return observed(attributes, Instrument(), kept=kept)


_REMADE = 0.4  # of the images in `mixed`
_KEPT = 1000  # maps, which a training asks for again and again: 160 MB for preset quick


def sometimes_instrument(attributes: Mapping[str, Any]) -> Remake:
    """See `instrument`; most images stay as they are."""
    noisy = instrument(attributes, kept=_KEPT)

    def remake(
        coordinates: Mapping[str, Any], arrays: Mapping[str, Array], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        if rng.random() < _REMADE:
            return noisy(coordinates, arrays, rng)
        return np.asarray(arrays["image"], np.float32)

    return remake


SETS = (
    CLEAN,
    Perturbation(
        "mild",
        "small changes of scale, noise and scan lines (arXiv 2602.18890, on |F|/|F(0)| instead of its grey values)",
        (
            Step("gain_shift", 0.3, {"gain": (0.98, 1.02), "shift": (-0.01, 0.01)}),
            Step("gaussian", 0.3, {"sigma": (0.001, 0.005)}),
            Step("scan_line", 0.2, {"sigma": (0.005, 0.01)}),
        ),
    ),
    Perturbation(
        "symb",
        "strain that breaks the symmetry, and noise (arXiv 2602.18890, on |F|/|F(0)| instead of its grey values)",
        (
            Step("strain", 0.8, {"strain": (0.01, 0.03)}),
            Step("gaussian", 0.3, {"sigma": (0.001, 0.005)}),
        ),
    ),
    Perturbation(
        "noisy",
        "stronger noise, scan lines and a blunt tip (arXiv 2602.18890, on |F|/|F(0)| instead of its grey values)",
        (
            Step("gaussian", 0.3, {"sigma": (0.004, 0.012)}),
            Step("scan_line", 0.3, {"sigma": (0.006, 0.015)}),
            Step("tip_blur", 0.25, {"sigma": (0.5, 0.9), "ratio": (1.0, 1.15)}),
            Step("gain_shift", 0.3, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}),
        ),
    ),
    Perturbation(
        "instrument",
        "a real-space map with an instrument's correlated, multiplicative noise, transformed as a real one is",
        remake=instrument,
        needs=("ldos",),
        about={"instrument": asdict(Instrument()), "atom_width_a": _WIDTH, "pixel_nm": _PIXEL},
    ),
    Perturbation(
        "mixed",
        "to train on: what the other sets do, alone and together",
        (
            Step("strain", 0.3, {"strain": (0.0, 0.03)}),
            Step("tip_blur", 0.15, {"sigma": (0.5, 0.9), "ratio": (1.0, 1.15)}),
            Step("gain_shift", 0.3, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}),
            Step("gaussian", 0.35, {"sigma": (0.0005, 0.012)}),
            Step("scan_line", 0.25, {"sigma": (0.002, 0.015)}),
        ),
        remake=sometimes_instrument,
        needs=("ldos",),
        about={"instrument": asdict(Instrument()), "instrument_share": _REMADE},
        judged=False,
    ),
)
