"""Figures of a whole data set: images over a parameter, their similarity, their principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.signal.similarity import Components, Similarity
from stm_models.tasks.inputs import Axes

__all__ = ["components", "images", "similarity_matrix"]

Floats = NDArray[Any]
_DECADES = 5
_COLOURS = ("cyan", "lime", "orange")


def images(
    shown: Floats,
    titles: Sequence[str],
    *,
    rows: Mapping[str, int],
    axes: Axes,
    unit: str,
    marks: Sequence[Mapping[str, Floats]] = (),
) -> Figure:
    """Show some images on one logarithmic scale with physical axes and marked positions.

    Parameters
    ----------
    shown : (n, C, H, W) floating
    titles : sequence of str
        Of each image.
    rows : mapping of str to int
        Name and number of each channel that gets a row.
    axes : Axes
    unit : str
        Of the pixels.
    marks : sequence of mapping of str to (P, 2) float64
        Of each image: positions in the axes' unit by their name. The first kind also decides the window of one
        more row, which enlarges the first channel's middle.
    """
    highest = float(shown.max())
    low, high = (np.log10(highest) - _DECADES, np.log10(highest)) if highest > 0 else (-_DECADES, 0.0)
    zoom = _zoom(marks)
    lines = [(name, channel, False) for name, channel in rows.items()]
    if zoom:
        lines.append(("enlarged", next(iter(rows.values())), True))
    figure = Figure(figsize=(2.0 * len(shown) + 0.9, 2.1 * len(lines) + 0.5), layout="constrained")
    panels = figure.subplots(len(lines), len(shown), squeeze=False)
    for number, (line, (name, channel, enlarged)) in enumerate(zip(panels, lines, strict=True)):
        for column, panel in enumerate(line):
            picture = np.log10(np.maximum(shown[column, channel], 10.0**low))
            drawn = panel.imshow(
                picture, origin="lower", extent=axes.extent, cmap="magma", vmin=low, vmax=high, aspect="auto"
            )
            _mark(panel, marks[column] if marks else {}, axes, innermost=enlarged)
            panel.tick_params(labelsize=7)
            if enlarged:
                panel.set(xlim=(-zoom, zoom), ylim=(-zoom, zoom))
            if number == 0:
                panel.set_title(titles[column], fontsize=9)
            if number == len(lines) - 1:
                panel.set_xlabel(axes.labels[0], fontsize=8)
            if column:
                panel.set_yticklabels([])
        line[0].set_ylabel(f"{name}\n{axes.labels[1]}" if len(lines) > 1 else axes.labels[1], fontsize=8)
    figure.colorbar(drawn, ax=list(panels.ravel()), label=f"log10 {unit}", shrink=0.8)
    if marks:
        handles, names = panels[-1, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)
    return figure


def similarity_matrix(found: Similarity, levels: Floats, *, label: str, unit: str) -> Figure:
    """Show the similarity of every two levels, with its value in each cell."""
    count = len(levels)
    side = max(4.2, 0.34 * count + 1.6)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    panel = figure.subplots()
    matrix = found.matrix
    drawn = panel.imshow(matrix, cmap="viridis", vmin=float(matrix.min()), vmax=1.0)
    middle = (float(matrix.min()) + 1) / 2
    for i in range(count):
        for j in range(count):
            text = f"{matrix[i, j]:.4f}".replace("0.", ".", 1)
            panel.text(
                j, i, text, ha="center", va="center", fontsize=6, color="white" if matrix[i, j] < middle else "black"
            )
    names = [f"{level:.3g}" for level in levels]
    panel.set_xticks(range(count), names, fontsize=7, rotation=90)
    panel.set_yticks(range(count), names, fontsize=7)
    panel.set(xlabel=f"{label} ({unit})", ylabel=f"{label} ({unit})")
    panel.set_title("cosine similarity of standardised images, mean per " + label, fontsize=9)
    figure.colorbar(drawn, ax=panel, shrink=0.8)
    return figure


def components(found: Components, values: Floats, *, axes: Axes, label: str, unit: str, most: int = 3) -> Figure:
    """Show the first principal components, the variance they explain, and the images' scores.

    Parameters
    ----------
    found : Components
    values : (S,) float64
        The parameter that the scores are drawn against.
    """
    count = min(most, len(found.explained))
    figure = Figure(figsize=(2.6 * count + 0.4, 4.6), layout="constrained")
    panels = figure.subplots(2, count, squeeze=False)
    for index in range(count):
        pattern = found.patterns[index]
        channel = int(np.square(pattern).sum(axis=(1, 2)).argmax())
        limit = float(np.quantile(np.abs(pattern[channel]), 0.999)) or 1.0
        top, bottom = panels[:, index]
        top.imshow(
            pattern[channel], origin="lower", extent=axes.extent, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
        )
        of = f", channel {channel}" if len(pattern) > 1 else ""
        top.set_title(f"PC {index + 1}: {100 * found.explained[index]:.4g} %{of}", fontsize=9)
        top.set_xlabel(axes.labels[0], fontsize=8)
        bottom.plot(values, found.scores[:, index], ".", markersize=3, color="#b5367a")
        bottom.set_xlabel(f"{label} ({unit})", fontsize=8)
        for panel in (top, bottom):
            panel.tick_params(labelsize=7)
    panels[0, 0].set_ylabel(axes.labels[1], fontsize=8)
    panels[1, 0].set_ylabel("score", fontsize=8)
    return figure


def _zoom(marks: Sequence[Mapping[str, Floats]]) -> float:
    first = [next(iter(kinds.values())) for kinds in marks if kinds]
    return 3.5 * max(float(np.linalg.norm(points, axis=1).max()) for points in first) if first else 0.0


def _mark(panel: Plot, kinds: Mapping[str, Floats], axes: Axes, *, innermost: bool) -> None:
    x0, x1, y0, y1 = axes.extent
    for number, ((name, points), colour) in enumerate(zip(kinds.items(), _COLOURS, strict=False)):
        if number or innermost:  # the innermost would hide the middle of the whole window
            x, y = points.T
            inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
            panel.scatter(x[inside], y[inside], s=26, facecolors="none", edgecolors=colour, linewidths=0.8, label=name)
