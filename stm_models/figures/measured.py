"""Figures of one measured file: its spectra, its maps and their Fourier transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.data.readers import Measurement
from stm_models.errors import InputError
from stm_models.tasks.inputs import Axes, RawMap

__all__ = ["fourier", "maps", "spectra"]

Floats = NDArray[Any]
_DECADES = 3


def maps(raw: RawMap, channels: Sequence[int], titles: Sequence[str]) -> Figure:
    """Show some channels, each on the scale of its own 1st to 99th percentile."""
    figure, panels = _panels(len(channels))
    rows, columns = raw.values.shape[1:]
    height, width = raw.size_nm or (rows, columns)
    unit = "pixels" if raw.size_nm is None else "nm"
    for panel, channel, title in zip(panels, channels, titles, strict=True):
        values = raw.values[channel]
        low, high = np.percentile(values, [1, 99])
        if raw.points is not None:
            x, y = np.asarray(raw.points).T
            size = min(2.5e4 / len(x), 40)
            drawn = panel.scatter(x, y, c=values.ravel(), s=size, cmap="gray", vmin=low, vmax=high, linewidths=0)
            panel.set_aspect("equal")
        else:
            first = raw.unrecorded[0] * height / rows
            extent = (0, width, first, first + height)
            drawn = panel.imshow(values, origin="lower", extent=extent, cmap="gray", vmin=low, vmax=high)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(f"x ({unit})", fontsize=8)
        panel.set_ylabel(f"y ({unit})", fontsize=8)
        panel.tick_params(labelsize=7)
        figure.colorbar(drawn, ax=panel, shrink=0.8).ax.tick_params(labelsize=7)
    return figure


def fourier(magnitudes: Sequence[Floats], axes: Axes, titles: Sequence[str]) -> Figure:
    """Show Fourier magnitudes on one logarithmic scale."""
    figure, panels = _panels(len(magnitudes))
    highest = max(float(m.max()) for m in magnitudes) or 1.0
    high = float(np.log10(highest))
    for panel, magnitude, title in zip(panels, magnitudes, titles, strict=True):
        shown = np.log10(np.maximum(magnitude, highest * 10.0**-_DECADES))
        drawn = panel.imshow(
            shown, origin="lower", extent=axes.extent, cmap="magma", vmin=high - _DECADES, vmax=high, aspect="auto"
        )
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(axes.labels[0], fontsize=8)
        panel.set_ylabel(axes.labels[1], fontsize=8)
        panel.tick_params(labelsize=7)
    figure.colorbar(drawn, ax=panels, label="log10 |F|", shrink=0.8)
    return figure


def spectra(raw: Measurement) -> Figure:
    """Show the field's mean over bias, and between which values nine tenths of the pixels lie.

    Raises
    ------
    InputError
        When the bias values are unknown.
    """
    if raw.bias is None:
        raise InputError(f"{raw.source} does not state its biases; expected a stack over bias")
    flat = raw.values.reshape(len(raw.values), -1)
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    panel = figure.subplots()
    if flat.shape[1] > 1:
        low, high = np.percentile(flat, [5, 95], axis=1)
        panel.fill_between(raw.bias, low, high, color="0.8", label="5 to 95 % of the pixels")
    panel.plot(raw.bias, flat.mean(axis=1), color="black", linewidth=1, label="mean")
    panel.set_xlabel("bias (V)")
    panel.set_ylabel(f"{raw.channel or 'value'} ({raw.unit or 'unknown unit'})")
    panel.legend(fontsize=8)
    return figure


def _panels(count: int) -> tuple[Figure, list[Any]]:
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns + 0.5, 2.7 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in grid[count:]:
        spare.remove()
    return figure, list(grid[:count])
