"""Figures of what a network makes of samples: points in a plane, coloured by what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["plane"]

_MARKERS = "o^sDvP"
_COLUMNS = 3


def plane(
    points: NDArray[Any],
    kinds: NDArray[Any],
    colours: Mapping[str, NDArray[Any]],
    *,
    title: str,
    axes: tuple[str, str],
) -> Figure:
    """Draw the points once for each quantity, and once by their kind where there are several.

    Parameters
    ----------
    points : (S, 2) floating
    kinds : (S,) str
        What each sample is of; every kind has a marker of its own.
    colours : mapping of str to (S,) floating
        By label, with unit; samples without a value (NaN) are left out.
    title : str
    axes : (x, y)
    """
    names = list(dict.fromkeys(kinds.tolist()))
    count = len(colours) + (len(names) > 1)
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.4 * columns + 0.2, 2.9 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_axis_off()
    for panel in panels[:count]:
        panel.set_xlabel(axes[0], fontsize=8)
        panel.set_ylabel(axes[1], fontsize=8)
        panel.tick_params(labelsize=7)
    if len(names) > 1:
        for number, name in enumerate(names):
            mine = points[kinds == name].T
            panels[0].scatter(*mine, s=9, marker=_MARKERS[number % len(_MARKERS)], alpha=0.7, lw=0, label=name)
        panels[0].legend(fontsize=7)
    for panel, (label, values) in zip(panels[len(names) > 1 :], colours.items(), strict=False):
        known = np.isfinite(values)
        limits = {"vmin": float(values[known].min()), "vmax": float(values[known].max())}
        for number, name in enumerate(names):
            mine = known & (kinds == name)
            drawn = panel.scatter(
                *points[mine].T, c=values[mine], s=9, lw=0, marker=_MARKERS[number % len(_MARKERS)], **limits
            )
        bar = figure.colorbar(drawn, ax=panel)
        bar.ax.tick_params(labelsize=7)
        panel.set_title(label, fontsize=9)
    figure.suptitle(title, fontsize=9)
    return figure
