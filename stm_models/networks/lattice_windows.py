"""Windows on the peaks of an FT-LDOS image: where a known lattice puts them, and what is weighed there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError, unknown

__all__ = ["PARTS", "SYMMETRIES", "PeakGrid", "between", "quadrant", "stars", "windows"]

Floats = NDArray[np.float64]

PARTS = ("height", "radial", "tangential", "shear_0", "shear_1")
"""What is weighed at each star: its height, the curvature along and across k, and two shears of the lattice."""
SYMMETRIES = ("D6", "D2", "C2")
"""What may make peaks alike: the moiré lattice's symmetry, that of a scan along x or y, k -> -k alone."""
_WIDE = 2.2  # widths of the window: the background that is subtracted within each line
_FAR = 2.6  # widths of a peak
_NOTHING = 1e-7
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
    grid: PeakGrid, groups: list[Floats], width: float, *, level: bool = True
) -> dict[str, NDArray[np.float32]]:
    """Weights (stars, H*W) of every one of `PARTS`: the mean over a star of Hermite functions at its peaks.

    ``width`` is the Gaussian's in widths of a peak. With ``level`` the weights of a line sum to zero about each
    peak, so that offsets of lines and of the whole image drop out. Those of the heights give 1 for Gaussian peaks
    of the star itself and 0 for those of others.
    """
    ky, kx = grid.axes
    sigma = width * grid.peak
    shape = (len(groups), grid.height, grid.width)
    result, peaks = {name: np.zeros(shape) for name in PARTS}, np.zeros(shape)
    for row, group in enumerate(groups):
        for place in group:
            u, v = (kx - place[0]) / sigma, (ky - place[1]) / sigma
            gauss = np.exp(-(u**2 + v**2) / 2) / len(group)
            peaks[row] += np.exp(-((width * u) ** 2 + (width * v) ** 2) / 2)
            wide = np.exp(-((u / _WIDE) ** 2 + (v / _WIDE) ** 2) / 2)
            share = wide / np.maximum(wide.sum(axis=1, keepdims=True), 1e-12)
            radius = math.hypot(*place)
            middle = radius < 1e-9
            cos, sin = (1.0, 0.0) if middle else place / radius
            radial, tangential = u * cos + v * sin, v * cos - u * sin
            hermite = {
                "height": gauss, "radial": (radial**2 - 1) * gauss, "tangential": (tangential**2 - 1) * gauss,
                "shear_0": (u * cos - v * sin) * gauss, "shear_1": (u * sin + v * cos) * gauss,
            }  # fmt: skip
            if middle:  # a shear leaves it where it is
                hermite["shear_0"] = hermite["shear_1"] = np.zeros_like(gauss)
            for name, values in hermite.items():
                result[name][row] += values - share * values.sum(axis=1, keepdims=True) if level else values
    # What a window sees of its neighbours' peaks is taken away: a height is that of its own star.
    seen = np.einsum("ihw,jhw->ij", result["height"], peaks)
    result["height"] = np.einsum("ij,jhw->ihw", np.linalg.inv(seen), result["height"])
    for values in result.values():
        values[np.abs(values) < _NOTHING] = 0.0  # also because numbers near the smallest of float32 are slow
    return {name: values.reshape(len(groups), -1).astype(np.float32) for name, values in result.items()}


def between(grid: PeakGrid, edges: tuple[float, ...]) -> NDArray[np.float32]:
    """Weights (bands, H*W) of the mean over pixels far from any peak, in bands of |kx| that ``edges`` (1/a) divide.

    Noise of a scan along x is the same in all of a band. A band without pixels has no weights.
    """
    ky, kx = np.broadcast_arrays(*grid.axes)
    places = np.stack([kx.ravel(), ky.ravel()], axis=1)
    parts = places @ np.linalg.inv(grid.vectors)
    nearest = np.full(len(places), np.inf)
    for corner in np.ndindex(3, 3):
        offset = (parts - np.rint(parts) + np.array(corner) - 1) @ grid.vectors
        nearest = np.minimum(nearest, np.hypot(*offset.T))
    far = nearest > _FAR * grid.peak
    bands = np.digitize(np.abs(places[:, 0]), edges)
    chosen = far & (bands == np.arange(len(edges) + 1)[:, None])
    weights: NDArray[np.float32] = (chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return weights


def quadrant(weights: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Fold weights (K, H*W) that mirrors change at most in sign: (K, h*w) for the first quarter of the image.

    They belong to the sum of the image's four mirror images; lines in the middle are their own mirror image.
    """
    rows, columns = -(-height // 2), -(-width // 2)
    folded = weights.reshape(-1, height, width)[:, :rows, :columns].copy()
    if height % 2:
        folded[:, -1] /= 2
    if width % 2:
        folded[:, :, -1] /= 2
    return folded.reshape(len(weights), rows * columns)


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
