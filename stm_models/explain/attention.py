"""Where attention goes as a quantity grows: shares of regions over it, with intervals by bootstrap over states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["Attention", "Crossover", "Slope", "attention", "bins_for", "bins_of"]

Array = NDArray[Any]
_LEVEL = 0.95
_BINS = 8
_STATES = 3  # in a bin, at least about
_FLOOR = 1e-9  # of a share, in its logarithm


@dataclass(frozen=True)
class Slope:
    """Change of a region's share per unit of the quantity, by least squares, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Crossover:
    """Where two regions get the same attention per pixel.

    Attributes
    ----------
    value : float or None
        Where attention moves, and it lies within the data in at least 95 % of the resamples.
    interval : (low, high) or None
        Of 95 %.
    certainty : float
        Share of the resamples in which it does, in the same direction.
    reason : str
        Why there is none; empty where there is one.
    """

    value: float | None
    interval: tuple[float, float] | None
    certainty: float
    reason: str


@dataclass(frozen=True)
class Attention:
    """Shares of regions against a quantity.

    Attributes
    ----------
    names : tuple of str
        R regions.
    areas : (R,) float64
        Mean share of each region in the area.
    centres, counts : (B,)
        Mean of the quantity and number of samples in each bin.
    mean, low, high : (B, R) float64
        Mean share in each bin with its 95 % interval, NaN where a bin has one state only.
    slopes : dict of str to Slope
    compared : (str, str) or None
        The two regions of ``ratio`` and ``crossover``.
    ratio : Slope or None
        Of the logarithm of the second one's share over the first one's.
    crossover : Crossover or None
    """

    names: tuple[str, ...]
    areas: Array
    centres: Array
    counts: Array
    mean: Array
    low: Array
    high: Array
    slopes: Mapping[str, Slope]
    compared: tuple[str, str] | None
    ratio: Slope | None
    crossover: Crossover | None

    def statement(self, quantity: str, unit: str) -> str:
        """Say in words whether attention moves, and where it crosses over."""
        if self.compared is None or self.ratio is None or self.crossover is None:
            return "nothing is compared: fewer than two regions are known"
        first, second = self.compared
        per = "unit" if unit == "1" else unit
        slope = (
            f"the slope of ln(share of {second} / share of {first}) is {self.ratio.value:+.3g} "
            f"({self.ratio.low:+.3g} to {self.ratio.high:+.3g}) per {per}"
        )
        if not self.ratio.sure:
            return f"attention does not move measurably between {first} and {second} as {quantity} grows: {slope}"
        source, goal = (first, second) if self.ratio.value > 0 else (second, first)
        moves = f"attention moves from {source} to {goal} as {quantity} grows: {slope}"
        if self.crossover.interval is None:
            return f"{moves}; no crossover: {self.crossover.reason}"
        low, high = self.crossover.interval
        return (
            f"{moves}; per pixel both are equal at {quantity} = {self.crossover.value:.3g} "
            f"({low:.3g} to {high:.3g}){'' if unit == '1' else ' ' + unit}"
        )

    def record(self) -> dict[str, Any]:
        """Return it all, JSON-able."""
        return {
            "regions": list(self.names), "area": dict(zip(self.names, self.areas.tolist(), strict=True)),
            "centre": self.centres.tolist(), "samples": self.counts.tolist(),
            "share": {
                name: {"mean": mean.tolist(), "low": _known(low), "high": _known(high)}
                for name, mean, low, high in zip(self.names, self.mean.T, self.low.T, self.high.T, strict=True)
            },
            "slope": {name: vars(slope) | {"sure": slope.sure} for name, slope in self.slopes.items()},
            "compared": list(self.compared) if self.compared else None,
            "slope_of_log_ratio": None if self.ratio is None else vars(self.ratio) | {"sure": self.ratio.sure},
            "crossover": None if self.crossover is None else vars(self.crossover),
        }  # fmt: skip


def bins_for(groups: Array) -> int:
    """Return how many bins samples of these states (S,) are enough for: 2 to 8, of some three states at least."""
    return max(2, min(_BINS, len(np.unique(groups)) // _STATES))


def bins_of(values: Array, most: int = _BINS) -> NDArray[np.int64]:
    """Return the bin of each value (S,): one per level, or, of more than ``most``, about equally filled ones.

    Equal values are in one bin; bins are numbered without gaps from the lowest.
    """
    levels, level = np.unique(np.asarray(values, np.float64), return_inverse=True)
    if len(levels) <= most:
        return level.astype(np.int64)
    before = np.concatenate([[0], np.cumsum(np.bincount(level))[:-1]])
    number = np.minimum(before * most // len(level), most - 1)
    return np.unique(number, return_inverse=True)[1][level].astype(np.int64)


def attention(
    values: Array,
    shares: Array,
    areas: Array,
    groups: Array,
    names: Sequence[str],
    *,
    compared: tuple[str, str] | None = None,
    bins: int = _BINS,
    resamples: int = 1000,
    seed: int = 0,
) -> Attention:
    """Relate shares of regions to a quantity.

    Parameters
    ----------
    values : (S,) floating
        The quantity, e.g. U of each sample.
    shares, areas : (S, R) floating
        Share of each region in the sample's map, and in its area.
    groups : (S,) int
        The simulated state of each sample; whole states are resampled.
    names : sequence of str
        Of the R regions.
    compared : (str, str), optional
        Two regions between which attention may move.
    bins, resamples, seed : int
        At most so many bins, and the bootstrap.

    Raises
    ------
    InputError
        For fewer than three states or less than two different values.

    Notes
    -----
    The crossover is the zero of a straight line through ln[(share/area of the second) / (share/area of the first)]
    over the quantity.
    """
    values, shares, areas = (np.asarray(one, np.float64) for one in (values, shares, areas))
    _, state = np.unique(groups, return_inverse=True)
    states = int(state.max(initial=-1)) + 1
    if states < 3 or len(np.unique(values)) < 2:
        raise InputError(
            f"got {len(values)} samples of {states} states with {len(np.unique(values))} different values: expected at "
            "least 3 states and 2 values to tell where attention goes"
        )
    rng = np.random.default_rng([seed, 4])
    drawn = rng.multinomial(states, np.full(states, 1 / states), size=resamples)
    # The first row is the sample itself.
    weights = np.concatenate([np.ones((1, states), np.int64), drawn])[:, state].astype(np.float64)

    which = bins_of(values, bins)
    member = np.eye(which.max() + 1)[which]
    size = weights @ member
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.einsum("ws,sb,sr->wbr", weights, member, shares, optimize=True) / size[:, :, None]
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.nanpercentile(means[1:], [tail, 100 - tail], axis=0)
    alone = np.array([len(np.unique(state[which == number])) < 2 for number in range(which.max() + 1)])
    low[alone], high[alone] = np.nan, np.nan
    centres = (member.T @ values) / size[0]

    slopes = {name: _slope(_fits(values, shares[:, r], weights)[1]) for r, name in enumerate(names)}
    ratio = crossover = None
    if compared is not None:
        first, second = (list(names).index(name) for name in compared)
        strength = np.log(np.maximum(shares[:, second], _FLOOR)) - np.log(np.maximum(shares[:, first], _FLOOR))
        ratio = _slope(_fits(values, strength, weights)[1])
        density = strength - np.log(np.maximum(areas[:, second], _FLOOR) / np.maximum(areas[:, first], _FLOOR))
        crossover = _crossover(values, *_fits(values, density, weights), compared, ratio.sure)
    return Attention(
        tuple(names), areas.mean(axis=0), centres, size[0].astype(np.int64), means[0], low, high, slopes,
        compared, ratio, crossover,
    )  # fmt: skip


def _known(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _fits(x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Constant and slope of a straight line, for each row of ``weights`` (W, S); NaN where x does not vary."""
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    variance = weights @ (x * x) / total - mean_x**2
    slope = (weights @ (x * y) / total - mean_x * mean_y) / np.where(variance > 1e-12 * x.var(), variance, np.nan)
    return mean_y - slope * mean_x, slope


def _slope(found: Array) -> Slope:
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.nanpercentile(found[1:], [tail, 100 - tail])
    return Slope(float(found[0]), float(low), float(high))


def _crossover(values: Array, constant: Array, slope: Array, compared: tuple[str, str], sure: bool) -> Crossover:
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = -constant / slope
    start, end = float(values.min()), float(values.max())
    inside = (zero >= start) & (zero <= end) & (np.sign(slope) == np.sign(slope[0]))
    certainty = float(inside[1:].mean())
    if not sure:
        return Crossover(None, None, certainty, "attention does not move measurably")
    if inside[0] and certainty >= _LEVEL:
        low, high = np.percentile(zero[1:][inside[1:]], [100 * (1 - _LEVEL) / 2, 100 * (1 + _LEVEL) / 2])
        return Crossover(float(zero[0]), (float(low), float(high)), certainty, "")
    first, second = compared
    at_ends = constant[0] + slope[0] * np.array([start, end])
    if np.all(at_ends > 0) or np.all(at_ends < 0):
        more, less = (second, first) if at_ends[0] > 0 else (first, second)
        reason = f"{more} get more per pixel than {less} from {start:.3g} to {end:.3g}"
    else:
        reason = f"a line crosses zero at {zero[0]:.3g}, but only in {100 * certainty:.0f} % of the resamples"
    return Crossover(None, None, certainty, reason)
