"""Single pixels that an instrument got wrong, replaced by what lies about them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["despike"]

Array = NDArray[Any]

_USUAL = 0.99
_BEYOND = 5.0
_ALONE = 0.5


def despike(values: Array) -> tuple[Array, int]:
    """Replace pixels that stand out alone by the median of their 3 x 3 neighbourhood.

    Such a pixel lies above or below all its neighbours by five times what 99 % of the pixels do, by the map's
    standard deviation, and by half its distance from the map's median. The atoms of a map set the first measure;
    the last spares those that are rare but no narrower than a Gaussian of a standard deviation of 0.85 px.
    A map without atoms has a simpler measure: `stm_models.signal.preprocessing.without_spikes`.

    Parameters
    ----------
    values : (Y, X) floating

    Returns
    -------
    values : (Y, X) floating
        The same array where nothing stands out.
    count : int
        Pixels replaced, at most 1 % of all.
    """
    around = np.pad(values, 1, mode="reflect")
    rows, columns = values.shape
    shifted = [around[y : y + rows, x : x + columns] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    alone = np.maximum(values - np.maximum.reduce(shifted), np.minimum.reduce(shifted) - values)
    least = max(_BEYOND * np.quantile(alone, _USUAL), values.std())
    spikes = (alone > least) & (alone > _ALONE * np.abs(values - np.median(values)))
    count = int(np.count_nonzero(spikes))
    if not count:
        return values, 0
    result = values.copy()
    result[spikes] = np.median(sliding_window_view(around, (3, 3))[spikes], axis=(1, 2))
    return result, count
