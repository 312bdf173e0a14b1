"""How the image of a map of Gaussian atoms becomes that of the atoms' places, as a simulated image is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid
from stm_models.physics.raster import form_factor

__all__ = ["FiniteAtoms"]


@dataclass(frozen=True)
class FiniteAtoms:
    """What a map of atoms of a width is transformed with, to give the image of points.

    A Gaussian atom (standard deviation w) under a Gaussian envelope (s) is again a Gaussian: of width w s / S,
    at s^2 / S^2 of its place, under an envelope of S = sqrt(s^2 + w^2). Hence the map gets the envelope
    s = sqrt(S^2 - w^2), S being the model's, its k grid is S^2 / s^2 wider, and the image is divided by the
    narrower Gaussian's `form_factor`, which raises noise at high k.

    Attributes
    ----------
    envelope : float
        s, in the unit of the map's positions.
    grid : KGrid
        Where the map's Fourier sum is to be taken.
    divisor : (n, n) float64
        The form factor on that grid, 1 at k = 0.
    """

    envelope: float
    grid: KGrid
    divisor: NDArray[Any]

    @classmethod
    def of(cls, grid: KGrid, envelope: float, width: float) -> FiniteAtoms:
        """Return it for a model's ``grid`` and envelope S, and atoms of ``width``, in one unit.

        Raises
        ------
        InputError
            When the atoms are as wide as the envelope.
        """
        if width >= envelope:
            raise InputError(
                f"the images' envelope is {envelope:.3g} a wide, and the atoms of their maps are {width:.3g} a: "
                "give narrower atoms (--atom-width), or simulate with a larger simulate.envelope, e.g. 0.4"
            )
        narrow = math.sqrt(envelope**2 - width**2)
        stretch = (envelope / narrow) ** 2
        wider = KGrid(grid.n, grid.kx_max * stretch, grid.ky_max * stretch)
        return cls(narrow, wider, form_factor(wider.kx, wider.ky, width * narrow / envelope))
