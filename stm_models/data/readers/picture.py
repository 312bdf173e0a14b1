"""Pictures of maps (PNG, TIFF): grey values without a physical scale."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.arrays import limit
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import no_names
from stm_models.errors import InputError

__all__ = ["read"]

_LARGEST_SIDE = 16384
_MOST_FRAMES = 10_000


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read a grey picture, or the frames of a TIFF, as (frame, y, x) with the bottom row first.

    Raises
    ------
    InputError
        For colours (a colour map cannot be undone without knowing it), frames of different sizes, and pictures
        that would take more memory than a stack of maps may; the header says so before anything is unpacked.
    """
    no_names(path, wanted)
    if wanted.key is not None:
        raise InputError(f"{path.name} is a picture without names, got key {wanted.key!r}; leave the key out")
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(f"{path.name} needs the package pillow: pip install pillow") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures: they are refused below
        with Image.open(path, formats=["PNG", "TIFF"]) as picture:
            _check(picture.size, 1, path.name)
            count = getattr(picture, "n_frames", 1)
            _check(picture.size, count, path.name)
            size, frames = picture.size, np.empty((count, picture.height, picture.width), np.float64)
            for number in range(count):
                if count > 1:
                    picture.seek(number)
                if picture.size != size:
                    raise InputError(f"{path.name}: frame {number} has {picture.size} pixels, the first {size}")
                frames[number] = _grey(picture, path.name)[::-1]
    return Measurement(
        frames,
        None,
        None,
        path.name,
        kind=f"{path.suffix[1:].upper()} picture",
        orientation="rows turned over: the picture's bottom row comes first",
        notes=("The map comes from a picture: its values are grey levels, not a calibrated signal.",),
    )


def _check(size: tuple[int, int], frames: int, source: str) -> None:
    if max(size) > _LARGEST_SIDE or frames > _MOST_FRAMES:
        raise InputError(
            f"{source} has {frames} frames of {size[0]} x {size[1]} pixels; expected at most {_MOST_FRAMES} frames and "
            f"{_LARGEST_SIDE} pixels a side, so crop it first"
        )
    limit(8 * frames * size[0] * size[1], source)


def _grey(picture: Any, source: str) -> NDArray[Any]:
    if picture.mode in ("P", "RGBA", "RGB", "LA", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "La", "RGBa"):
        colours = np.asarray(picture.convert("RGB"))
        if np.any(colours != colours[..., :1]):
            raise InputError(
                f"{source} is in colours, from which values cannot be had back; export the map in grey, or its numbers"
            )
        return colours[..., 0]
    return _as_stored(np.asarray(picture), getattr(picture, "tag_v2", {}), source)


def _as_stored(values: NDArray[Any], tags: Any, source: str) -> NDArray[Any]:
    """Undo what pillow takes numbers of a TIFF for: it knows no signed bytes and no unsigned words of 32 bits."""
    form, bits, white = (np.ravel(tags.get(number, usual))[0] for number, usual in ((339, 1), (258, 8), (262, 1)))
    if white == 0 and bits > 8:
        raise InputError(f"{source} counts white as 0 (WhiteIsZero), which is not read in {bits} bits: turn it over")
    kind = {(2, 8): np.int8, (1, 32): np.uint32}.get((int(form), int(bits)))
    return values if kind is None else values.view(kind)
