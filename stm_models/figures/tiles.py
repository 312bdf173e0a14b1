"""One array as a small PNG picture of indexed colours: a pixel each, the first row below."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["MAPS", "bar", "tile"]

MAPS = {"sequential": "magma", "signed": "RdBu_r", "grey": "gray"}
"""Names of matplotlib's colours by what they are for."""
_LAST = 254  # of the colours; the one after it is for what is not finite
_MISSING = (128, 128, 128)


def tile(values: NDArray[Any], low: float, high: float, colours: str = "sequential") -> bytes:
    """Return (y, x) values between ``low`` and ``high`` as a PNG file; what is not finite is grey.

    Parameters
    ----------
    colours : str
        A key of `MAPS`.
    """
    numbers = np.asarray(values, np.float64)
    width = high - low
    with np.errstate(invalid="ignore", over="ignore"):
        share = (numbers - low) / (width if width > 0 and np.isfinite(width) else 1.0)
        index = np.where(np.isfinite(share), np.clip(share, 0, 1) * _LAST + 0.5, _LAST + 1).astype(np.uint8)
    return _png(index[::-1], colours)


def bar(colours: str = "sequential") -> bytes:
    """Return a scale of colours, the smallest value on the left."""
    return _png(np.arange(_LAST + 1, dtype=np.uint8)[None].repeat(2, axis=0), colours)


def _png(index: NDArray[np.uint8], colours: str) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(index), "P")
    picture.putpalette(_palette(colours))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@cache
def _palette(colours: str) -> bytes:
    table = matplotlib.colormaps[MAPS[colours]](np.linspace(0, 1, _LAST + 1))[:, :3]
    return bytes((table * 255 + 0.5).astype(np.uint8).tobytes()) + bytes(_MISSING)
