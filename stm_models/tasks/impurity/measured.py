"""A measured stack of maps becomes a network's input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from stm_models.errors import InputError
from stm_models.physics.surface.materials import MATERIALS
from stm_models.signal.bias_windows import BiasWindows, average
from stm_models.signal.preprocessing import Preparation, finished_rows, prepare_stack
from stm_models.tasks.impurity.spec import CLOSE_PIXELS, Preparing
from stm_models.tasks.inputs import Prepared, RawMap, read_spec

__all__ = ["prepare", "to_pixels"]

_MOST = 4096 * 4096  # pixels of the input
_SIGNAL = re.compile(r"[fpnuµμmk]?(A|V|S|A/V)|1?|a\.u\.?|arb\.?( units)?", re.ASCII)
"""Units that a lock-in signal, a current or its slope may have."""


def prepare(raw: RawMap, spec: Mapping[str, Any]) -> Prepared:
    """Average a stack over the model's bias windows, bring its pixels to the model's size, and prepare it.

    ``about`` says how to come back to the file: ``pixel_nm`` (its pixels' height and width), ``step`` (the file's
    pixels in one of the input, y and x), ``first_row`` (of the input, in the file), ``rows`` (the first that was
    measured, and the one after the last), ``size_nm`` (of its whole field) and the ``preparation``.

    Raises
    ------
    InputError
        For scattered values, a single spectrum, a signal that is no dI/dV by its unit, a file without its biases or
        its size, a ``spec`` that lacks something, no map in the bias windows, or a field too small or too large.
    """
    if raw.points is not None:
        raise InputError(
            f"{raw.source} holds values at scattered points: expected maps on a grid of pixels, e.g. a .3ds file"
        )
    if raw.values.shape[1:] == (1, 1):
        raise InputError(
            f"{raw.source} holds a spectrum at a single point, in which no impurity can be placed: expected maps on a "
            "grid of pixels, e.g. a .3ds file"
        )
    signal = _signal(raw)
    if raw.size_nm is None:
        raise InputError(
            f"{raw.source} does not say how large the field is, which the oscillation's length is measured by: "
            "give the size, e.g. --size-nm 37.5, or where no such option is, as size_nm in an .npz file"
        )
    described = read_spec(Preparing, spec)
    wanted = described.pixel_nm
    windows = BiasWindows(described.biases, described.half_width, described.reach)
    rows, notes = finished_rows(raw.values)
    maps = np.asarray(raw.values)[:, rows]
    averaged, used = average(maps, raw.bias, windows, band_bottom=described.band_bottom)
    height, width = raw.values.shape[1:]
    pixel = (raw.size_nm[0] / height, raw.size_nm[1] / width)
    fitted, step = to_pixels(averaged, pixel, wanted, raw.source)
    if max(step) != 1 or min(step) != 1:
        notes = (*notes, _resampled(averaged, fitted, pixel, wanted))
    notes = (*notes, *_too_coarse(max(pixel), described))
    image = prepare_stack(fitted, Preparation.of(described.preparation))
    first = raw.unrecorded[0] + int(rows.start)
    size = [pixel[0] * (height + sum(raw.unrecorded)), raw.size_nm[1]]
    about = {
        "pixel_nm": list(pixel), "step": list(step), "first_row": first,
        "rows": [first, first + rows.stop - rows.start], "size_nm": size,
        "source": raw.source,
        "biases": [float(v) for v in np.asarray(raw.bias).ravel()], "windows": list(windows.centres),
        "half_width": windows.half_width, "preparation": described.preparation, "material": described.material,
    }  # fmt: skip
    return Prepared(image, np.ones(image.shape[1:], bool), (*signal, *notes, *used), about)


def _signal(raw: RawMap) -> tuple[str, ...]:
    """Refuse what by its unit is no dI/dV, as a topography in m; note what by its name is none, as a current."""
    from stm_models.data.readers.signals import means_didv

    if raw.unit is not None and not _SIGNAL.fullmatch(raw.unit.strip()):
        raise InputError(
            f"{raw.source} is in {raw.unit}, which no map of dI/dV is: expected a lock-in signal or a current "
            "(A, V, S or A/V); choose another with --channel NAME"
        )
    if raw.channel is None or means_didv(raw.channel):
        return ()
    return (
        f"The maps are of {raw.channel}, which is not known as a signal of dI/dV: the positions mean nothing if it "
        "is not proportional to it.",
    )


def _too_coarse(pixel: float, described: Preparing) -> tuple[str, ...]:
    """Warn of pixels (nm) that `Material.check_pixels` refuses in simulations, where the surface is known."""
    surface = MATERIALS.get(described.material)
    if surface is None or 2 * surface.wave_number(max(described.biases), 10 * pixel) < np.pi:
        return ()
    return (
        f"The file's pixels of {pixel:.3g} nm are so coarse that a period of the oscillation of {surface.name} has no "
        "more than two: do not trust it.",
    )


def to_pixels(
    maps: NDArray[np.float64], pixel: tuple[float, float], wanted: float, source: str
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Interpolate maps (N, H, W) with pixels of (height, width) nm to square ones of ``wanted`` nm.

    Also return the file's pixels per pixel of the result, y and x: 1 where nothing had to be interpolated.

    Raises
    ------
    InputError
        For a field of less than 8 such pixels along a side, or of too many.
    """
    factors = [size / wanted for size in pixel]
    if all(abs(factor - 1) <= CLOSE_PIXELS for factor in factors):
        return maps, (1.0, 1.0)
    shape = [max(1, round(n * factor)) for n, factor in zip(maps.shape[1:], factors, strict=True)]
    if min(shape) < 8 or shape[0] * shape[1] > _MOST:
        size = " x ".join(f"{n * p:.3g}" for n, p in zip(maps.shape[1:], pixel, strict=True))
        raise InputError(
            f"{source} is a field of {size} nm, which is {shape[0]} x {shape[1]} pixels of the model's {wanted:g} nm: "
            f"expected at least 8 along each side and at most {_MOST} in all; check the size, or give a larger field"
        )
    step = tuple(n / m for n, m in zip(maps.shape[1:], shape, strict=True))
    # grid_mode: pixels are areas, so that the field keeps its outer edges.
    smooth = [max(s, 1.0) for s in step]
    result = np.stack([_shrunk(one, shape, smooth) for one in maps])
    return result, (float(step[0]), float(step[1]))


def _shrunk(values: NDArray[np.float64], shape: list[int], step: list[float]) -> NDArray[np.float64]:
    # Averages what falls into one pixel before the field is sampled more coarsely. Cubic: lines between pixels would
    # take a quarter of the oscillation, of which a period is but three or four pixels.
    blurred = gaussian_filter(values, [np.sqrt(max(s * s - 1, 0) / 12) for s in step], mode="nearest")
    zoomed = zoom(
        blurred, [n / m for n, m in zip(shape, values.shape, strict=True)], order=3, mode="nearest", grid_mode=True
    )
    return np.asarray(zoomed, np.float64)


def _resampled(before: NDArray[Any], after: NDArray[Any], pixel: tuple[float, float], wanted: float) -> str:
    size = " x ".join(f"{p:.3g}" for p in pixel)
    return (
        f"The file's pixels of {size} nm were interpolated to the model's {wanted:.4g} nm: "
        f"{before.shape[1]} x {before.shape[2]} became {after.shape[1]} x {after.shape[2]}."
    )
