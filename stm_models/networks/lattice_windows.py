"""Windows on the peaks of an FT-LDOS image: where a known lattice puts them, and what is weighed there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError, unknown

__all__ = ["SHAPES", "SYMMETRIES", "PeakGrid", "between", "quadrant", "stars", "windows"]

Floats = NDArray[np.float64]

SHAPES = ("radial", "tangential", "shear_0", "shear_1")
"""What is weighed at each star beside its height: the curvature along and across k, and two shears of the lattice."""
SYMMETRIES = ("D6", "D2", "C2")
"""What may make peaks alike: the moiré lattice's symmetry, that of a scan along x or y, k -> -k alone."""
_WIDE = 2.2  # widths of the window: the background that is subtracted within each line
_FAR = 2.6  # widths of a peak
_RIM = 2.0  # px: peaks nearer to the border are not whole


@dataclass(frozen=True)
class PeakGrid:
    """The image's pixels and the lattice whose peaks it holds.

    Attributes
    ----------
    height, width : int
    pixel : (x, y), 1/a
        Step between pixels; k = 0 lies in the middle of the image.
    vectors : (2, 2) float64, 1/a
        Reciprocal lattice vectors as rows, x and y.
    peak : float, 1/a
        Standard deviation of a peak.
    """

    height: int
    width: int
    pixel: tuple[float, float]
    vectors: Floats
    peak: float

    @property
    def axes(self) -> tuple[Floats, Floats]:
        """Wave vectors (height, 1) and (1, width) of the pixels, 1/a."""
        y = np.asarray((np.arange(self.height) - (self.height - 1) / 2) * self.pixel[1], np.float64)
        x = np.asarray((np.arange(self.width) - (self.width - 1) / 2) * self.pixel[0], np.float64)
        return y[:, None], x[None, :]


def stars(grid: PeakGrid, symmetry: str = "D6") -> list[Floats]:
    """Group the lattice vectors inside the image, (N, 2) x and y in 1/a, by what symmetry makes alike, from k = 0 out.

    Parameters
    ----------
    symmetry : str
        One of `SYMMETRIES`; k -> -k is one that |F| of a real density always has.

    Raises
    ------
    InputError
        For an unknown symmetry, when the vectors do not span a plane, or when peaks lie so close that their windows
        would overlap.
    """
    if symmetry not in SYMMETRIES:
        raise unknown("symmetry", symmetry, SYMMETRIES)
    first, second = np.asarray(grid.vectors, np.float64)
    area = abs(first[0] * second[1] - first[1] * second[0])
    if not area > 0:
        raise InputError(f"reciprocal vectors {grid.vectors.tolist()} span no lattice: expected two of them, 1/a")
    distance = min(
        math.hypot(*first), math.hypot(*second), math.hypot(*(first - second)), math.hypot(*(first + second))
    )
    if distance < 2.5 * grid.peak or distance < 2.5 * max(grid.pixel):
        raise InputError(
            f"peaks lie {distance:.3g} 1/a apart, and are {grid.peak:.3g} wide on pixels of {max(grid.pixel):.3g}: "
            "expected at least 2.5 widths and pixels between them; take larger images, or a wider patch"
        )
    limit = np.array([((grid.width - 1) / 2 - _RIM) * grid.pixel[0], ((grid.height - 1) / 2 - _RIM) * grid.pixel[1]])
    reach = math.ceil(math.hypot(*limit) * max(math.hypot(*first), math.hypot(*second)) / area) + 1
    counts = np.arange(-reach, reach + 1)
    found: dict[tuple[float, ...], list[Floats]] = {}
    for place in (counts[:, None, None] * first + counts[None, :, None] * second).reshape(-1, 2):
        if np.all(np.abs(place) <= limit):
            found.setdefault(_key(place, distance, symmetry), []).append(place)
    return [np.array(found[key]) for key in sorted(found)]


def windows(
    grid: PeakGrid, groups: list[Floats], width: float, parts: tuple[str, ...] = ("height",), *, level: bool = True
) -> list[Floats]:
    """Weights (stars, H, W) of heights or `SHAPES` or both: the mean over a star of Hermite functions at its peaks.

    ``width`` is the Gaussian's in widths of a peak. With ``level`` the weights of a line sum to zero about each
    peak, so that offsets of lines and of the whole image drop out. Those of the heights give 1 for Gaussian peaks
    of the star itself and 0 for those of others.
    """
    ky, kx = grid.axes
    sigma = width * grid.peak
    shape = (len(groups), grid.height, grid.width)
    result, peaks = {name: np.zeros(shape) for name in parts}, np.zeros(shape)
    for row, group in enumerate(groups):
        for place in group:
            u, v = (kx - place[0]) / sigma, (ky - place[1]) / sigma
            gauss = _gauss(u) * _gauss(v) / len(group)
            peaks[row] += _gauss(width * u) * _gauss(width * v)
            share = _gauss(u / _WIDE)
            share /= share.sum()
            for name in parts:
                values = _hermite(name, u, v, place) * gauss
                result[name][row] += values - share * values.sum(axis=1, keepdims=True) if level else values
    if "height" in parts:
        # What a window sees of its neighbours' peaks is taken away: a height is that of its own star.
        height = result["height"].reshape(len(groups), -1)
        seen = height @ peaks.reshape(len(groups), -1).T
        result["height"] = (np.linalg.inv(seen) @ height).reshape(shape)
    return list(result.values())


def _gauss(distance: Floats) -> Floats:
    found: Floats = np.exp(-(distance**2) / 2)
    return found


def _hermite(name: str, u: Floats, v: Floats, place: Floats) -> Floats:
    """Return what the Gaussian of a peak at ``place`` is multiplied with for a height or one of `SHAPES`."""
    radius = math.hypot(*place)
    middle = radius < 1e-9
    cos, sin = (1.0, 0.0) if middle else place / radius
    match name:
        case "height":
            return np.ones((1, 1))
        case "radial":
            return (u * cos + v * sin) ** 2 - 1
        case "tangential":
            return (v * cos - u * sin) ** 2 - 1
        case "shear_0" | "shear_1" if middle:  # a shear leaves it where it is
            return np.zeros((1, 1))
        case "shear_0":
            return u * cos - v * sin
        case "shear_1":
            return u * sin + v * cos
    raise unknown("part of a window", name, ("height", *SHAPES))


def between(grid: PeakGrid, edges: tuple[float, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where no peak is near, and weights of the columns there.

    Noise of a scan along x is the same in all of a band of |kx|; ``edges`` (1/a) divide these bands. Weights times the
    sums of the columns over the pixels far from peaks are the bands' means. A band without such pixels has no weights.

    Returns
    -------
    far : (H, W) float32
        1 far from any peak, else 0.
    weights : (bands, W) float32
    """
    ky, kx = np.broadcast_arrays(*grid.axes)
    places = np.stack([kx.ravel(), ky.ravel()], axis=1)
    parts = places @ np.linalg.inv(grid.vectors)
    nearest = np.full(len(places), np.inf)
    for corner in np.ndindex(3, 3):
        offset = (parts - np.rint(parts) + np.array(corner) - 1) @ grid.vectors
        nearest = np.minimum(nearest, np.hypot(*offset.T))
    far = (nearest > _FAR * grid.peak).reshape(grid.height, grid.width)
    bands = np.digitize(np.abs(grid.axes[1][0]), edges) == np.arange(len(edges) + 1)[:, None]
    weights = bands / np.maximum((bands @ far.sum(axis=0))[:, None], 1)
    return far.astype(np.float32), weights.astype(np.float32)


def quadrant(weights: Floats) -> Floats:
    """Fold weights (K, H, W) that mirrors change at most in sign: (K, h, w) for the first quarter of the image.

    They belong to the sum of the image's four mirror images; lines in the middle are their own mirror image.
    """
    height, width = weights.shape[1:]
    rows, columns = -(-height // 2), -(-width // 2)
    folded = weights[:, :rows, :columns].copy()
    if height % 2:
        folded[:, -1] /= 2
    if width % 2:
        folded[:, :, -1] /= 2
    return folded


def _key(place: Floats, unit: float, symmetry: str) -> tuple[float, ...]:
    """Distance from the middle, and what else tells a star from others at that distance."""
    radius = math.hypot(*place)
    if symmetry == "C2":
        sign = 1.0 if (place[1], place[0]) >= (0.0, 0.0) else -1.0
        return (round(radius / unit, 3), *(round(float(sign * part) / unit, 3) + 0.0 for part in place))
    if symmetry == "D2":
        return (round(radius / unit, 3), *(round(abs(float(part)) / unit, 3) for part in place))
    angle = math.atan2(place[1], place[0]) % (math.pi / 3)
    return (round(radius / unit, 3), round(min(angle, math.pi / 3 - angle), 3))
