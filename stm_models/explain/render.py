"""Pictures of explanation maps over their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.files import atomic_path

__all__ = ["overlay_png"]

_DECADES = 2.0
_SIGNED = "RdBu_r"


def overlay_png(
    path: str | Path,
    image: NDArray[Any],
    map: NDArray[Any],
    *,
    extent: tuple[float, float, float, float],
    labels: tuple[str, str],
    title: str,
    unit: str,
    image_label: str = "image",
    limit: float | None = None,
) -> None:
    """Draw a signed map over its image and write it as PNG, atomically.

    The image is grey, on a logarithmic scale when it is positive over more than two decades (the colour bar
    says so); the map is red where positive and blue where negative, symmetric about zero, the more opaque the
    larger. Row 0 is at the bottom.

    Parameters
    ----------
    image, map : (H, W) floating
        NaN is drawn as a gap.
    extent : (x0, x1, y0, y1)
        Outer edges of the field in the units that ``labels`` name.
    labels : (x, y)
        Axis labels with their units.
    unit : str
        Of the map, e.g. ``"eV"``.
    image_label : str
        What the grey values are, with their unit.
    limit : float, optional
        Colours go from minus to plus this value, so that several pictures share a scale; by default the map's own
        largest.

    Raises
    ------
    InputError
        When the two shapes differ or are not two-dimensional.
    """
    image, map = np.asarray(image, dtype=np.float64), np.asarray(map, dtype=np.float64)
    if image.ndim != 2 or image.shape != map.shape:
        raise InputError(f"image {image.shape} and map {map.shape} differ: expected the same (height, width)")
    figure = Figure(figsize=(7.2, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    norm, scale = _norm(image)
    grey = axes.imshow(image, cmap="gray", norm=norm, extent=extent, origin="lower", aspect="auto")
    largest = limit or float(np.nanmax(np.abs(map), initial=0.0)) or 1.0
    opacity = np.nan_to_num(np.clip(np.abs(map) / largest, 0.0, 1.0)) ** 0.5
    colours = Normalize(-largest, largest)
    axes.imshow(
        map,
        cmap=_SIGNED,
        norm=colours,
        alpha=opacity,
        extent=extent,
        origin="lower",
        aspect="auto",
    )
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    figure.colorbar(ScalarMappable(colours, _SIGNED), ax=axes, label=unit)
    figure.colorbar(grey, ax=axes, label=f"{image_label}{scale}")
    with atomic_path(path) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def _norm(image: NDArray[np.float64]) -> tuple[Normalize, str]:
    values = image[np.isfinite(image)]
    if values.size == 0:
        return Normalize(0.0, 1.0), ""
    low, high = float(values.min()), float(values.max())
    if low > 0 and np.log10(high / low) > _DECADES:
        return LogNorm(low, high), " (log scale)"
    return Normalize(low, high), ""
