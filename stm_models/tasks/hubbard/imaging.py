"""How a real-space map of a simulated state is made, and turned into the image of its atoms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid
from stm_models.physics.raster import rasterise
from stm_models.signal.finite_atoms import FiniteAtoms
from stm_models.signal.real_map import to_ft_image
from stm_models.tasks.hubbard.structure import ImagedAtoms
from stm_models.tasks.inputs import RawMap

__all__ = ["ATOM_WIDTH", "NM", "PIXEL", "Imaging"]

Array = NDArray[Any]

ATOM_WIDTH = 0.2
"""Standard deviation of an atom, a: 0.49 Å."""
PIXEL = 0.05
"""nm, well within the 0.097 nm that the window along ky needs."""
NM = LATTICE_CONSTANT / 10
"""One a in nm."""
_RIM = 1.0  # a: room for the outermost atoms' tails


@dataclass(frozen=True)
class Imaging:
    """How a map is transformed, so that a clean one gives the very image of its atoms' Fourier sum: see `FiniteAtoms`.

    What is left out is the tail of an atom beyond the field: below 1e-6 of the image with a rim of 1 a.

    Attributes
    ----------
    radius : float
        In a, of the disc that holds atoms and the rim around it.
    grid : KGrid
        The model's.
    envelope : float
        Standard deviation of the model's Gaussian envelope in a.
    """

    radius: float
    grid: KGrid
    envelope: float

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Imaging:
        """Read a data set's ``input``: its k window, and radius and envelope of the disc.

        Raises
        ------
        InputError
            When it does not say, e.g. for images from elsewhere, or the envelope is as narrow as an atom.
        """
        missing = [name for name in ("width", "kx_max", "ky_max", "envelope", "radius") if spec.get(name) is None]
        if missing:
            raise InputError(
                f"the data set does not say how its images were made ({', '.join(missing)} missing), so they cannot be "
                "made again from maps: give a data set made by `stm simulate`"
            )
        grid = KGrid(spec["width"], spec["kx_max"], spec["ky_max"])
        imaging = cls(spec["radius"] + _RIM, grid, spec["envelope"] * spec["radius"])
        _ = imaging.atoms  # refuses
        return imaging

    @cached_property
    def atoms(self) -> FiniteAtoms:
        """With what maps are transformed."""
        return FiniteAtoms.of(self.grid, self.envelope, ATOM_WIDTH)

    @property
    def pixels(self) -> int:
        """Side of the map in pixels of at most half an ångström."""
        return math.ceil(2 * self.radius * NM / PIXEL)

    @property
    def pixel_nm(self) -> float:
        """Side of a pixel in nm."""
        return 2 * self.radius * NM / self.pixels

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
        return rasterise(atoms.positions, values, side=side, pixels=self.pixels, width=ATOM_WIDTH)

    def images(self, maps: Array) -> NDArray[np.float32]:
        """Return the FT images (B, n, n) of ``maps`` (B, Y, X), by the way that a real map takes."""
        size = 2 * self.radius * NM
        pictures = [
            to_ft_image(
                RawMap(one[None], (size, size), None, "map"), self.grid,
                envelope=self.envelope / self.radius, radius=self.radius, atom_width=ATOM_WIDTH,
            )[0]
            for one in maps
        ]  # fmt: skip
        return np.stack(pictures)
