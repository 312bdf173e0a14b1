"""8-bit pictures: reading PNG files without trusting them, and the colour map turbo forth and back."""

from __future__ import annotations

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError, one_line

__all__ = ["LARGEST_SIDE", "from_turbo", "grey", "read_png", "to_turbo"]

LARGEST_SIDE = 4096
"""Pixels along a side that a picture may have."""

_TOLERANCE = 12  # largest difference of a channel to the nearest turbo colour: what resampling leaves of a smooth map
_FOREIGN = 0.01  # fraction of pixels that may lie further off

Array = NDArray[Any]


def read_png(path: Path) -> NDArray[np.uint8]:
    """Return the picture's colours, (y, x, 3) uint8; transparency is refused, palettes are expanded.

    Raises
    ------
    InputError
        When it is no PNG file, is cut short or damaged, or larger than `LARGEST_SIDE` along a side.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as picture:
                if max(picture.size) > LARGEST_SIDE:
                    raise InputError(
                        f"{path.name} has {picture.width}x{picture.height} pixels, expected at most "
                        f"{LARGEST_SIDE} along a side: make it smaller"
                    )
                if picture.mode.startswith("I"):
                    raise InputError(f"{path.name} has 16 bits per pixel, expected an 8-bit picture; read it as a map")
                colours = np.asarray(picture.convert("RGBA"))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name} is no PNG picture: take it out of the folder") from error
    except Exception as error:  # the decoder meets foreign bytes here and raises whatever it likes
        reason = one_line(error)
        raise InputError(f"{path.name} is cut short or damaged ({reason}): copy it again") from error
    if np.any(colours[..., 3] != 255):
        raise InputError(f"{path.name} is partly transparent: save it without an alpha channel")
    return colours[..., :3]


def grey(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the luma in [0, 1] of (y, x, 3) colours, rounded to 8 bits as Pillow's mode L (ITU-R BT.601)."""
    from PIL import Image

    return np.asarray(Image.fromarray(colours).convert("L"), np.float32) / np.float32(255)


def to_turbo(values: Array) -> bytes:
    """Return (y, x) values as an 8-bit PNG in turbo colours, scaled to the picture's own smallest and largest value.

    Raises
    ------
    InputError
        When all values are equal.
    """
    from PIL import Image

    low, high = float(np.min(values)), float(np.max(values))
    if not high > low:
        raise InputError(f"all pixels equal {low:g}: a picture scaled to its own range would show nothing")
    level = np.minimum((np.asarray(values, np.float64) - low) / (high - low) * 256, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(_table()[level]).save(file, "PNG")
    return file.getvalue()


def from_turbo(colours: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """Return the (y, x) scalar in [0, 1] that turbo paints in the nearest colours.

    Raises
    ------
    InputError
        When more than 1 % of the pixels are no colours of turbo.
    """
    distinct, place = np.unique(colours.reshape(-1, 3), axis=0, return_inverse=True)
    distance, level = _tree().query(distinct.astype(np.float64), p=np.inf)
    foreign = float(np.mean(distance[place.ravel()] > _TOLERANCE))
    if foreign > _FOREIGN:
        raise InputError(
            f"{name}: {foreign:.0%} of the pixels have no colour of the turbo map; give --colours grey, or pictures "
            "without axes, margins and colour bars"
        )
    scalar = level.astype(np.float32) / 255
    return scalar[place.ravel()].reshape(colours.shape[:2])


@cache
def _table() -> NDArray[np.uint8]:
    from matplotlib import colormaps

    table: NDArray[np.uint8] = colormaps["turbo"](np.arange(256), bytes=True)[:, :3]
    return table


@cache
def _tree() -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(_table().astype(np.float64))
