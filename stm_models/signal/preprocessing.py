"""From raw dI/dV maps to what an impurity network sees: the one way for simulated, measured and served data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, median_filter

from stm_models.errors import InputError, unknown

__all__ = ["Preparation", "finished_rows", "over_level", "prepare_stack", "without_spikes"]

Floats = NDArray[np.float64]
_SMALLEST = 8  # px
_SPIKE = 10.0  # robust standard deviations: farther from its neighbours' median is no pixel of a surface
_ROUNDING = 1e-10  # relative to the map: what is left of a plane of double precision after it was removed


@dataclass(frozen=True)
class Preparation:
    """What is done to each map, in this order.

    Attributes
    ----------
    level : bool
        Divide by the map's median, where the medians stand out from the maps' spread.
    plane : bool
        Subtract the plane of least squares.
    high_pass : float, px
        Subtract the map smoothed by a Gaussian of this width; 0 does not.
    lines : bool
        Subtract the median of each line of the scan (x is the fast axis).
    inside : float
        Values are cut at ±c, where this share of the pixels has a modulus below c, and divided by c.
    """

    level: bool = True
    plane: bool = True
    high_pass: float = 8.0
    lines: bool = True
    inside: float = 0.995

    def __post_init__(self) -> None:
        if not (np.isfinite(self.high_pass) and self.high_pass >= 0):
            raise InputError(f"high_pass is {self.high_pass} px: expected 0 (none) or a positive width, e.g. 8")
        if not 0.5 <= self.inside <= 1:
            raise InputError(f"inside is {self.inside}: expected a share between 0.5 and 1, e.g. 0.995")

    def record(self) -> dict[str, bool | float]:
        """Return the options as a plain dict, which :meth:`of` reads."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, bool | float]) -> Preparation:
        """Options from a record, e.g. from a model's input description.

        Raises
        ------
        InputError
            For an unknown option or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in record:
            if name not in known:
                raise unknown("preparation", name, known)
        return cls(**record)  # type: ignore[arg-type]


def prepare_stack(maps: ArrayLike, preparation: Preparation | None = None) -> NDArray[np.float32]:
    """Prepare raw maps for a network.

    Parameters
    ----------
    maps : (V, H, W) array_like
        dI/dV in any unit; x is the fast axis.
    preparation : Preparation, optional

    Returns
    -------
    (V, H, W) float32, between -1 and 1

    Raises
    ------
    InputError
        For another shape, fewer than 8 pixels along a side, values that are no finite numbers (with the rows of an
        unfinished scan), or a map without contrast.

    Notes
    -----
    The result does not change when a map is multiplied by a positive number, nor when a plane or line offsets are
    added that leave its median's sign; a lock-in signal of the wrong sign is turned by its negative median. Maps
    about zero, such as differences, keep their sign. The working memory is that of a few maps,
    not of the stack. Spikes shade their surroundings: :func:`without_spikes` comes before, in the averages over bias
    windows.
    """
    how = preparation or Preparation()
    stack = _checked(maps)
    level, spread = _level(stack)
    stands_out = how.level and _stands_out(level, spread)
    rounding = max(_ROUNDING, 4 * float(np.finfo(stack.dtype).eps))
    result = np.empty(stack.shape, np.float32)
    for index, raw in enumerate(stack):
        values = np.asarray(raw, np.float64)
        values = values / (level[index] if stands_out else float(np.abs(values).max()) or 1.0)
        before = float(np.abs(values).max())
        if how.plane:
            values = values - _plane(values)
        if how.high_pass > 0:
            values = values - gaussian_filter(values, how.high_pass, mode="reflect")
        if how.lines:
            values = values - np.median(values, axis=1, keepdims=True)
        modulus = np.abs(values)
        bound = float(np.quantile(modulus, how.inside))
        if bound <= rounding * before:
            bound = float(modulus.max())  # a few bright pixels in an otherwise empty map
        if bound <= rounding * before:
            raise InputError(
                f"map {index + 1} of {len(stack)} has no contrast (a constant, a plane or whole lines of one value): "
                "expected a dI/dV map; choose another channel, or leave this bias out"
            )
        result[index] = np.clip(values / bound, -1, 1)
    return result


def without_spikes(maps: ArrayLike) -> Floats:
    """Set single wild pixels to the median of their 3 x 3 neighbourhood: (V, H, W) float64.

    Wild is farther from that median than 10 robust standard deviations of the map.

    Raises
    ------
    InputError
        As :func:`prepare_stack`, but for the contrast.
    """
    stack = _checked(maps)
    result = stack.astype(np.float64)
    for values, spread in zip(result, _level(stack)[1], strict=True):
        if spread > 0:
            around = median_filter(values, size=3, mode="reflect")
            wild = np.abs(values - around) > _SPIKE * spread
            values[wild] = around[wild]
    return result


def over_level(maps: ArrayLike) -> Floats:
    """Divide each map by its median, so that maps taken at different set points can be averaged: (V, H, W) float64.

    Maps about zero, whose medians do not stand out from their spread, are returned as they are.
    """
    stack = _checked(maps)
    level, spread = _level(stack)
    if not _stands_out(level, spread):
        return stack.astype(np.float64)
    divided: Floats = stack / level[:, None, None]
    return divided


def finished_rows(maps: ArrayLike) -> tuple[slice, tuple[str, ...]]:
    """Find the rows that an unfinished scan did reach.

    Parameters
    ----------
    maps : (V, H, W) array_like
        Pixels not reached hold NaN, or zero, in every map.

    Returns
    -------
    rows : slice
        Of the measured rows; all where the scan is complete. The row in which it stopped is left out too.
    notes : tuple of str
        One sentence where rows are missing.

    Raises
    ------
    InputError
        When no row is measured, or the missing rows lie between measured ones.
    """
    stack = _shaped(maps)
    measured = np.any(np.isfinite(stack) & (stack != 0), axis=0)
    reached = measured.any(axis=1)
    height = len(reached)
    if reached.all():
        return slice(0, height), ()
    where = np.flatnonzero(reached)
    if not len(where):
        raise InputError(f"none of the {height} rows holds a value: expected a dI/dV map; choose another channel")
    first, last = int(where[0]), int(where[-1])
    if len(where) != last - first + 1:
        raise InputError(
            f"{height - len(where)} of {height} rows hold no value, between others that do: expected a scan without "
            "gaps; cut the field to a part without them"
        )
    first += first > 0 and not measured[first].all()
    last -= last < height - 1 and not measured[last].all()
    if last < first:
        raise InputError(f"none of the {height} rows was measured to its end: expected a dI/dV map of more rows")
    note = f"The scan is unfinished: {height - (last - first + 1)} of {height} rows are incomplete and were left out."
    return slice(first, last + 1), (note,)


def _shaped(maps: ArrayLike) -> NDArray[np.floating]:
    stack = np.asarray(maps)
    if np.iscomplexobj(stack) or stack.dtype.kind not in "fiub":
        raise InputError(f"maps have type {stack.dtype}: expected real numbers; take the in-phase part of the signal")
    if stack.dtype.kind != "f":
        stack = stack.astype(np.float64)
    if stack.ndim != 3 or not stack.size:
        raise InputError(f"maps have shape {stack.shape}: expected (bias, y, x); give one map as map[None]")
    return stack


def _checked(maps: ArrayLike) -> NDArray[np.floating]:
    stack = _shaped(maps)
    if min(stack.shape[1:]) < _SMALLEST:
        raise InputError(
            f"maps have {stack.shape[1]} x {stack.shape[2]} pixels: expected at least {_SMALLEST} along each side; "
            "impurities cannot be told apart in fewer"
        )
    finite = np.isfinite(stack)
    if finite.all():
        return stack
    rows = np.flatnonzero(~finite.any(axis=(0, 2)))
    if len(rows):
        raise InputError(
            f"rows {rows[0]} to {rows[-1]} of {stack.shape[1]} hold no finite value (an unfinished scan?): "
            "cut the maps to their measured rows"
        )
    index = int(np.flatnonzero(~finite.all(axis=(1, 2)))[0])
    raise InputError(
        f"map {index + 1} of {len(stack)} holds {int((~finite[index]).sum())} values that are NaN or infinite: "
        "expected finite numbers; leave the map out or fill the gaps before"
    )


def _level(stack: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Median of each map, and its robust standard deviation."""
    level = np.array([np.median(values) for values in stack], np.float64)
    spread = np.array(
        [1.4826 * np.median(np.abs(values - middle)) for values, middle in zip(stack, level, strict=True)]
    )
    return level, spread


def _stands_out(level: Floats, spread: Floats) -> bool:
    return bool(np.all(np.abs(level) > spread))


def _plane(values: Floats) -> Floats:
    y, x = (np.arange(n) - (n - 1) / 2 for n in values.shape)
    slope_y = float(values.mean(axis=1) @ y) / float(y @ y)
    slope_x = float(values.mean(axis=0) @ x) / float(x @ x)
    return float(values.mean()) + slope_y * y[:, None] + slope_x * x[None, :]
