"""Reference positions from a bound-state map: expectation maximisation of a weighted Gaussian mixture.

The map at the band bottom is read as a density: Gaussians where electrons are bound, over a uniform background.
arXiv:2006.15898 takes its reference answer this way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from stm_models.errors import InputError
from stm_models.signal.peaks import find_peaks

__all__ = ["Mixture", "fit_mixture", "reference_positions"]

Floats = NDArray[np.float64]
_TINY = 1e-300
_REACH = 6.0  # widths about a Gaussian: 1e-8 of its height
_WIDTH = 1.4  # px, the expected standard deviation of a state
_WIDTHS = 0.5, 4.0  # px, the limits of the widths
_NOISE_LEVELS = 3.0  # robust standard deviations of the smoothed map, above its median
_SMALLEST = 0.2  # of the median weight: lighter Gaussians are left out
_MERGE = 1.5  # px: of two closer Gaussians the heavier stays


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture.

    Attributes
    ----------
    positions : (K, 2) float64, px
        y, x.
    width : (K,) float64, px
        Standard deviation along each axis.
    weight : (K,) float64
        Shares of the map's sum; with ``background`` they sum to one.
    background : float
    log_likelihood : float
        Per unit of weight, of the pixel centres.
    iterations : int
    """

    positions: Floats
    width: Floats
    weight: Floats
    background: float
    log_likelihood: float
    iterations: int


def fit_mixture(
    density: ArrayLike,
    starts: ArrayLike,
    *,
    width: float = _WIDTH,
    shared: bool = True,
    background: bool = True,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Mixture:
    """Fit isotropic Gaussians to a map by expectation maximisation.

    Parameters
    ----------
    density : (H, W) array_like
        Non-negative weights of the pixels.
    starts : (K, 2) array_like, px
        First positions.
    width : float, px
        First standard deviation; it stays within 0.5 to 4 px.
    shared : bool
        One width for all, or one each.
    background : bool
        With a uniform background.
    tolerance : float
        Ends when the mean log likelihood grows by less.
    max_iterations : int

    Raises
    ------
    InputError
        For negative or non-finite weights, an empty map or no starts.
    """
    weights = _density(density)
    centres = np.array(starts, np.float64).reshape(-1, 2)
    if not len(centres) or not np.all(np.isfinite(centres)):
        raise InputError("no starting positions: expected at least one (y, x) in pixels")
    mass = weights / weights.sum()
    sigma = np.full(len(centres), np.clip(width, *_WIDTHS))
    share = np.full(len(centres), (0.5 if background else 1.0) / len(centres))
    rest = 0.5 if background else 0.0
    before, likelihood, iterations = -np.inf, -np.inf, 0
    while iterations < max_iterations:
        rows, columns, joint, likelihood = _responsibilities(mass, centres, sigma, share, rest)
        iterations += 1
        if likelihood - before < tolerance:
            break
        before = likelihood
        share = np.maximum(joint.sum(axis=1), _TINY)
        centres = np.stack([(joint * rows).sum(axis=1), (joint * columns).sum(axis=1)], axis=1) / share[:, None]
        square = (rows - centres[:, :1]) ** 2 + (columns - centres[:, 1:]) ** 2
        variance = 0.5 * (joint * square).sum(axis=1) / share
        if shared:
            variance = np.full(len(share), share @ variance / share.sum())
        sigma = np.clip(np.sqrt(variance), *_WIDTHS)
        rest = max(0.0, 1.0 - float(share.sum())) if background else 0.0
    return Mixture(centres, sigma, share, rest, likelihood, iterations)


def reference_positions(bound_state: ArrayLike) -> Mixture:
    """Positions of the bound states in a map, each about 1.4 px wide: from maxima 3 noise levels above the median.

    Parameters
    ----------
    bound_state : (H, W) array_like
        dI/dV at the band bottom, in any unit.

    Returns
    -------
    Mixture
        Fitted once more without those below a fifth of the median weight, and the lighter of two within 1.5 px.

    Raises
    ------
    InputError
        For a map of another shape, not finite, or without any state that stands out.
    """
    values = np.asarray(bound_state, np.float64)
    if values.ndim != 2 or min(values.shape, default=0) < 4 or not np.all(np.isfinite(values)):
        raise InputError(
            f"bound-state map has shape {values.shape}: expected one map (y, x) of finite values, at least 4 x 4 pixels"
        )
    smooth = gaussian_filter(values, 0.7 * _WIDTH, mode="reflect")
    level = float(np.median(smooth))
    spread = 1.4826 * float(np.median(np.abs(smooth - level)))
    first = find_peaks(smooth, threshold=level + _NOISE_LEVELS * spread, min_distance=_MERGE, shape="parabola")
    if not len(first):
        raise InputError(
            f"no maximum of the bound-state map is {_NOISE_LEVELS:g} noise levels above its median: expected the map "
            "at the band bottom, where impurities are bright; choose its channel and bias"
        )
    density = np.maximum(values - level, 0)
    found = fit_mixture(density, first.positions)
    kept = _pruned(found, values.shape)
    return found if kept.all() else fit_mixture(density, found.positions[kept], width=float(found.width[0]))


def _pruned(found: Mixture, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    kept = found.weight >= _SMALLEST * np.median(found.weight)
    kept &= np.all((found.positions > -0.5) & (found.positions < np.array(shape) - 0.5), axis=1)
    order = np.argsort(-found.weight, kind="stable")
    pairs = np.sort(KDTree(found.positions[order]).query_pairs(_MERGE, output_type="ndarray"), axis=1)
    for heavier, lighter in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if kept[order[heavier]]:
            kept[order[lighter]] = False
    return kept


def _density(density: ArrayLike) -> Floats:
    weights = np.asarray(density, np.float64)
    if weights.ndim != 2 or not np.all(np.isfinite(weights)) or np.any(weights < 0) or not weights.sum() > 0:
        raise InputError(
            f"density has shape {weights.shape}: expected (y, x) of finite weights of at least 0, not all 0"
        )
    return weights


def _responsibilities(
    mass: Floats, centres: Floats, sigma: Floats, share: Floats, rest: float
) -> tuple[Floats, Floats, Floats, float]:
    """Pixels about each Gaussian (K, P), the part of their mass that it explains (K, P), and the log likelihood."""
    reach = int(np.ceil(_REACH * sigma.max()))
    window = np.arange(-reach, reach + 1)
    middle = np.rint(centres).astype(np.int64)
    y = (middle[:, :1] + np.repeat(window, len(window))).clip(-1, mass.shape[0])
    x = (middle[:, 1:] + np.tile(window, len(window))).clip(-1, mass.shape[1])
    inside = (y >= 0) & (y < mass.shape[0]) & (x >= 0) & (x < mass.shape[1])
    pixel = np.where(inside, y * mass.shape[1] + x, 0)
    square = (y - centres[:, :1]) ** 2 + (x - centres[:, 1:]) ** 2
    joint = np.exp(-0.5 * square / sigma[:, None] ** 2) * (share / (2 * np.pi * sigma**2))[:, None] * inside
    total = np.bincount(pixel.ravel(), joint.ravel(), minlength=mass.size) + rest / mass.size
    flat = mass.ravel()
    occupied = flat > 0
    likelihood = float(flat[occupied] @ np.log(np.maximum(total[occupied], _TINY)))
    joint *= (flat / np.maximum(total, _TINY))[pixel]
    return y.astype(np.float64), x.astype(np.float64), joint, likelihood
