"""From a file's biases, any number in any order, to a model's channels: averages over windows of bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError
from stm_models.signal.preprocessing import over_level, without_spikes

__all__ = ["BiasWindows", "average"]

Floats = NDArray[np.float64]
_ROUNDING = 1e-9  # V


@dataclass(frozen=True)
class BiasWindows:
    """The biases that a model looks at.

    Attributes
    ----------
    centres : tuple of float, V
        One per channel, in the channels' order.
    half_width : float, V
        A channel averages the maps within this distance, ends included.
    reach : float, V
        A channel whose window is empty takes the nearest map within this distance.
    """

    centres: tuple[float, ...]
    half_width: float
    reach: float

    def __post_init__(self) -> None:
        if not self.centres or not np.all(np.isfinite(self.centres)):
            raise InputError(f"biases of the model are {list(self.centres)}: expected finite values in V")
        if not (np.isfinite(self.half_width) and self.half_width >= 0):
            raise InputError(f"half width of the bias windows is {self.half_width} V: expected at least 0, e.g. 0.018")
        if not (np.isfinite(self.reach) and self.reach >= self.half_width):
            raise InputError(
                f"reach of the bias windows is {self.reach} V: expected at least their half width, {self.half_width:g}"
            )


def average(
    maps: ArrayLike, biases: ArrayLike | None, windows: BiasWindows, *, band_bottom: float | None = None
) -> tuple[Floats, tuple[str, ...]]:
    """Average a stack over a model's bias windows.

    Parameters
    ----------
    maps : (N, H, W) array_like
        Raw dI/dV. Spikes are removed and each map is divided by its median first, where the medians stand out, so
        that maps taken at different set points weigh alike.
    biases : (N,) array_like, V
        In any order, any spacing; repeated biases are averaged. None where the file does not state them.
    windows : BiasWindows
    band_bottom : float, eV, optional
        Maps at or below it show no surface state and are never used.

    Returns
    -------
    averaged : (V, H, W) float64
    notes : tuple of str
        Which biases were used, and which channels had to take a neighbour's map.

    Raises
    ------
    InputError
        When biases are missing, not finite or of another number than the maps, when none lies above the band
        bottom, or when a channel has no map within reach.
    """
    stack = np.asarray(maps)
    centres = np.asarray(windows.centres, np.float64)
    span = f"{centres.min():g} to {centres.max():g} V"
    if biases is None:
        raise InputError(
            f"the file does not state its biases, and the model looks at {len(centres)} of {span}: give a stack with "
            "its biases, e.g. an .npz file with data (bias, y, x) and bias (V)"
        )
    volts = np.asarray(biases, np.float64)
    if volts.ndim != 1 or stack.ndim != 3 or len(volts) != len(stack):
        raise InputError(
            f"biases have shape {volts.shape} and maps {stack.shape}: expected one bias for each map of (bias, y, x)"
        )
    if not np.all(np.isfinite(volts)):
        raise InputError(f"biases are {volts}: expected finite values in V")
    above = np.ones(len(volts), bool) if band_bottom is None else volts > band_bottom
    if band_bottom is not None and not above.any():
        raise InputError(
            f"all biases, {volts.min():g} to {volts.max():g} V, are at or below the band bottom, {band_bottom:g} eV, "
            f"where no surface state exists: give maps at {span}, or choose the material of the sample"
        )
    chosen, used, borrowed = _choose(volts, above, centres, windows)
    relative = over_level(without_spikes(stack[used]))
    averaged = np.stack([relative[np.isin(used, index)].mean(axis=0) for index in chosen])
    return averaged, _notes(volts, above, centres, used, borrowed, band_bottom)


def _choose(
    volts: Floats, above: NDArray[np.bool_], centres: Floats, windows: BiasWindows
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], list[int]]:
    """Maps of each channel, all maps used (ascending), channels without a map of their own."""
    distance = np.where(above[:, None], np.abs(volts[:, None] - centres), np.inf)
    nearest = distance.min(axis=0)
    off = nearest > windows.reach + _ROUNDING
    if off.any():
        missing = ", ".join(f"{v:g}" for v in centres[off])
        raise InputError(
            f"no map within {windows.reach:g} V of {missing} V among the {len(volts)} biases from {volts.min():g} to "
            f"{volts.max():g} V: the model looks at {len(centres)} biases from {centres.min():g} to {centres.max():g} V"
            "; give a stack that covers them, or a model made for these biases"
        )
    limit = np.maximum(windows.half_width, nearest) + _ROUNDING
    chosen = [np.flatnonzero(column <= most) for column, most in zip(distance.T, limit, strict=True)]
    borrowed = np.flatnonzero(nearest > windows.half_width + _ROUNDING).tolist()
    return chosen, np.unique(np.concatenate(chosen)), borrowed


def _notes(
    volts: Floats,
    above: NDArray[np.bool_],
    centres: Floats,
    used: NDArray[np.int64],
    borrowed: list[int],
    band_bottom: float | None,
) -> tuple[str, ...]:
    taken = volts[used]
    notes = [
        f"{len(used)} of {len(volts)} maps, {taken.min():g} to {taken.max():g} V, were averaged over the model's "
        f"{len(centres)} bias windows."
    ]
    if borrowed:
        where = ", ".join(f"{centres[index]:g}" for index in borrowed)
        notes.append(f"No map lies in the windows at {where} V: the nearest one stands in.")
    if not above.all():
        below = int((~above).sum())
        maps, were = ("map", "was") if below == 1 else ("maps", "were")
        notes.append(f"{below} {maps} at or below the band bottom, {band_bottom:g} eV, {were} left out.")
    return tuple(notes)
