"""Local maxima of a score map, at sub-pixel positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label, maximum_filter, mean
from scipy.spatial import KDTree

from stm_models.errors import InputError, unknown

__all__ = ["Peaks", "find_peaks"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Peaks:
    """Maxima, the highest first.

    Attributes
    ----------
    y, x : (N,) float64, px
        Pixel centres at whole numbers from zero.
    height : (N,) float64
        Value of the map at the pixel.
    """

    y: Floats
    x: Floats
    height: Floats

    def __len__(self) -> int:
        return len(self.height)

    @property
    def positions(self) -> Floats:
        """(N, 2) float64, px: y, x."""
        return np.stack([self.y, self.x], axis=1)

    def above(self, threshold: float) -> Peaks:
        """Those higher than ``threshold``."""
        return self.first(int(np.count_nonzero(self.height > threshold)))

    def first(self, count: int) -> Peaks:
        """The ``count`` highest."""
        return Peaks(self.y[:count], self.x[:count], self.height[:count])


def find_peaks(
    score: ArrayLike,
    *,
    threshold: float = 0.0,
    min_distance: float = 1.0,
    most: int | None = None,
    border: int = 0,
    shape: Literal["parabola", "gaussian", "pixel"] = "parabola",
) -> Peaks:
    """Find the local maxima of a map.

    Parameters
    ----------
    score : (H, W) array_like
        Finite values; sharp peaks stand for impurities.
    threshold : float
        A maximum must be higher; ``-inf`` takes all.
    min_distance : float, px
        Of two maxima that are not farther apart than this, the higher one stays.
    most : int, optional
        Keep only so many of the highest.
    border : int, px
        Maxima in so many outermost pixels are left out; 0 keeps those on the edge itself.
    shape : {"parabola", "gaussian", "pixel"}
        Position from a parabola through three pixels along each axis, from one through their logarithms (exact for
        a Gaussian peak; parabola where a value is not positive), or the pixel itself. On the edge of the map the
        position across it is the pixel's.

    Returns
    -------
    Peaks
        The highest first, equal ones in reading order. A plateau is one peak in its middle; a constant map has none.

    Raises
    ------
    InputError
        When the map is not two-dimensional or not finite, or an option is out of range.
    """
    values = _checked(score, min_distance, most, border)
    if shape not in ("parabola", "gaussian", "pixel"):
        raise unknown("peak shape", shape, ("parabola", "gaussian", "pixel"))
    y, x, height = _maxima(values, threshold, shape)
    rows, columns = values.shape
    inside = (y > border - 1) & (y < rows - border) & (x > border - 1) & (x < columns - border)
    y, x, height = y[inside], x[inside], height[inside]
    order = np.argsort(-height, kind="stable")
    found = Peaks(y[order], x[order], height[order])
    kept = _far_apart(found.positions, min_distance)
    found = Peaks(found.y[kept], found.x[kept], found.height[kept])
    return found if most is None else found.first(most)


def _checked(score: ArrayLike, min_distance: float, most: int | None, border: int) -> Floats:
    values = np.asarray(score, np.float64)
    if values.ndim != 2 or not values.size:
        raise InputError(f"map has shape {values.shape}: expected (y, x)")
    if not np.all(np.isfinite(values)):
        raise InputError("map holds NaN or infinite values: expected finite scores")
    if not min_distance >= 0:
        raise InputError(f"minimum distance is {min_distance} px: expected at least 0, e.g. 1")
    if border < 0:
        raise InputError(f"border is {border} px: expected at least 0")
    if most is not None and most < 0:
        raise InputError(f"number of peaks is {most}: expected at least 0")
    return values


def _maxima(values: Floats, threshold: float, shape: str) -> tuple[Floats, Floats, Floats]:
    """Positions and heights of the maxima over the eight neighbours, in reading order."""
    padded = np.pad(values, 1, constant_values=-np.inf)
    neighbours = maximum_filter(padded, size=3, mode="constant", cval=-np.inf)[1:-1, 1:-1]
    candidate = (values >= neighbours) & (values > threshold)
    if values.min() == values.max() or not candidate.any():
        return np.empty(0), np.empty(0), np.empty(0)
    names, count = label(candidate, np.ones((3, 3), int))
    # A flat shoulder touches pixels of its own height that have a higher neighbour: it is no maximum.
    shoulder = maximum_filter(np.where(candidate, -np.inf, values), size=3, mode="constant", cval=-np.inf) >= values
    real = np.ones(count + 1, bool)
    real[names[candidate & shoulder]] = False
    size = np.bincount(names.ravel(), minlength=count + 1)
    which = np.flatnonzero(real[1:]) + 1
    rows, columns = np.nonzero(candidate)
    first = np.full(count + 1, -1)
    of = names[rows, columns]
    first[of[::-1]] = np.arange(len(rows))[::-1]
    row, column = rows[first[which]], columns[first[which]]
    y, x = row.astype(np.float64), column.astype(np.float64)
    if shape != "pixel":
        y, x = y + _offset(padded, row, column, (1, 0), shape), x + _offset(padded, row, column, (0, 1), shape)
    flat = size[which] > 1
    if flat.any():
        grid_y, grid_x = np.mgrid[: values.shape[0], : values.shape[1]]
        y[flat] = mean(grid_y, names, which[flat])
        x[flat] = mean(grid_x, names, which[flat])
    return y, x, values[row, column]


def _offset(
    padded: Floats, row: NDArray[np.int64], column: NDArray[np.int64], step: tuple[int, int], shape: str
) -> Floats:
    """Distance of the vertex from the pixel along one axis: (N,), at most half a pixel; 0 on the edge."""
    centre = padded[row + 1, column + 1]
    before = padded[row + 1 - step[0], column + 1 - step[1]]
    after = padded[row + 1 + step[0], column + 1 + step[1]]
    inner = np.isfinite(before) & np.isfinite(after)
    before, after = np.where(inner, before, centre), np.where(inner, after, centre)
    if shape == "gaussian":
        positive = np.minimum(before, after) > 0
        before, centre, after = (np.where(positive, np.log(np.where(positive, v, 1.0)), v)
                                 for v in (before, centre, after))  # fmt: skip
    curvature = before - 2 * centre + after
    bent = curvature < 0
    offset = np.where(bent, 0.5 * (before - after) / np.where(bent, curvature, 1.0), 0.0)
    return np.clip(offset, -0.5, 0.5)


def _far_apart(positions: Floats, distance: float) -> NDArray[np.bool_]:
    """Which of positions, the best first, stay when each drives out those within ``distance``."""
    kept = np.ones(len(positions), bool)
    if len(positions) < 2:
        return kept
    pairs = KDTree(positions).query_pairs(distance, output_type="ndarray")
    pairs = np.sort(pairs, axis=1)
    for better, worse in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if kept[better]:
            kept[worse] = False
    return kept
