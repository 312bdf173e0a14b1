"""Where the values of a measured map lie: positions in units of a about the middle of the scanned field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.tasks.inputs import RawMap

__all__ = ["NM", "Field"]

Array = NDArray[Any]

NM = 10 / LATTICE_CONSTANT
"""One nm in units of a."""


@dataclass(frozen=True)
class Field:
    """The field of a map.

    Attributes
    ----------
    scanned : (N, 2) float64, a
        Positions x, y of the values as they were scanned, about `middle`.
    pixel : (height, width) or None
        Of a pixel, in a; None for scattered points.
    half : (height, width)
        Half the field's sides, in a.
    rotate : float
        Degrees counter-clockwise by which the field is to be turned.
    middle : (x, y)
        About which positions count, from the field's own middle, in a, as scanned.
    """

    scanned: Array
    pixel: tuple[float, float] | None
    half: tuple[float, float]
    rotate: float = 0.0
    middle: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, raw: RawMap) -> Field:
        """Read where the values of a map lie.

        Raises
        ------
        InputError
            For a raster of unknown or impossible size, positions that do not belong to the values or are not finite,
            and points on one line.
        """
        if raw.points is None:
            (rows, columns), pixel = raw.values.shape[1:], _pixel(raw)
            y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip((rows, columns), pixel, strict=True))
            places = np.stack([np.tile(x, rows), np.repeat(y, columns)], axis=1)
            return cls(places, pixel, (rows * pixel[0] / 2, columns * pixel[1] / 2), raw.rotate)
        places = _centred(raw)
        width, height = np.ptp(places, axis=0)
        return cls(places, None, (float(height / 2), float(width / 2)), raw.rotate)

    @cached_property
    def positions(self) -> Array:
        """Positions (N, 2) in a, turned by ``rotate``."""
        turned: Array = self.scanned @ turn(self.rotate).T
        return turned

    @cached_property
    def distance(self) -> Array:
        """Distance (N,) of each from `middle`, in a."""
        found: Array = np.hypot(self.scanned[:, 0], self.scanned[:, 1])
        return found

    @cached_property
    def room(self) -> float:
        """Radius in a of the largest disc about `middle` that the field holds."""
        (height, width), (x, y) = self.half, self.middle
        inner = min(height - abs(y), width - abs(x))
        if self.pixel is not None:
            return inner
        # Points may fill a disc, whose own edge is its farthest point.
        farthest = float(np.hypot(*(self.scanned + self.middle).T).max())
        return farthest - math.hypot(x, y) if farthest < 1.1 * min(height, width) else inner

    def about(self, place: tuple[float, float]) -> Field:
        """Return the field with positions that count about ``place``, as scanned."""
        moved = np.subtract(place, self.middle)
        return replace(self, scanned=self.scanned - moved, middle=place)


def turn(degrees: float) -> Array:
    """Return the matrix that turns (x, y) counter-clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _pixel(raw: RawMap) -> tuple[float, float]:
    """Return height and width of a pixel in a."""
    if raw.size_nm is None:
        raise InputError(f"{raw.source} does not state its size; give it with --size-nm HEIGHTxWIDTH")
    height, width = raw.size_nm
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise InputError(f"{raw.source}: size is {height:g} x {width:g} nm; expected both positive")
    rows, columns = raw.values.shape[1:]
    return height * NM / rows, width * NM / columns


def _centred(raw: RawMap) -> Array:
    points = np.asarray(raw.points, np.float64) * NM
    if points.shape != (raw.values[0].size, 2) or not np.isfinite(points).all():
        raise InputError(
            f"{raw.source}: positions have shape {points.shape}; expected ({raw.values[0].size}, 2), all finite"
        )
    centred: Array = points - (points.min(0) + points.max(0)) / 2
    if not np.ptp(centred, axis=0).min() > 0:
        raise InputError(f"{raw.source}: the points lie on one line; expected a field of two dimensions")
    return centred
