"""Figures of a search: its course, what mattered, what was tried, and what cannot be had together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

__all__ = ["Point", "history", "importances", "parallel", "pareto"]


@dataclass(frozen=True)
class Point:
    """One trial.

    Attributes
    ----------
    number : int
    values : tuple of float
        One per objective.
    pruned : bool
        Whether it was ended early; ``values`` are then the last ones.
    params : mapping
    """

    number: int
    values: tuple[float, ...]
    pruned: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)


def history(points: Sequence[Point], *, label: str, larger_is_better: bool) -> Figure:
    """Show the first value of every trial, and the best so far of those that went to their end."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axis = figure.subplots()
    for pruned, marker, name in ((False, "o", "complete"), (True, "x", "pruned")):
        shown = [point for point in points if point.pruned is pruned]
        if shown:
            axis.scatter([p.number for p in shown], [p.values[0] for p in shown], marker=marker, label=name)
    whole = [point for point in points if not point.pruned]
    if whole:
        accumulate = np.maximum.accumulate if larger_is_better else np.minimum.accumulate
        best = accumulate([point.values[0] for point in whole])
        axis.step([point.number for point in whole], best, where="post", color="black", label="best so far")
    axis.set_xlabel("trial")
    axis.set_ylabel(label)
    axis.legend()
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Show how much each parameter matters (shares of 1)."""
    figure = Figure(figsize=(5.5, 1.2 + 0.3 * len(shares)), layout="constrained")
    axis = figure.subplots()
    names = list(shares)[::-1]
    axis.barh(names, [shares[name] for name in names])
    axis.set_xlabel("share of the importance")
    return figure


def parallel(points: Sequence[Point], *, label: str, logarithmic: Sequence[str] = ()) -> Figure:
    """Show every trial as a line over its parameters; one that has not all of them has a gap there.

    Parameters
    ----------
    points : sequence of Point
        With at least one parameter among them.
    label : str
        Of the first value, which colours the lines.
    logarithmic : sequence of str
        Names of parameters on a logarithmic scale.
    """
    names = list(dict.fromkeys(name for point in points for name in point.params))
    figure = Figure(figsize=(2.5 + 1.4 * len(names), 4), layout="constrained")
    axis = figure.subplots()
    heights = {}
    for place, name in enumerate(names):
        places, ticks = _scale([point.params.get(name) for point in points], name in logarithmic)
        heights[name] = places
        for height, text in ticks:
            axis.annotate(text, (place, height), fontsize=7, ha="left", va="center", xytext=(3, 0),
                          textcoords="offset points")  # fmt: skip
    values = [point.values[0] for point in points]
    norm = matplotlib.colors.Normalize(min(values), max(values))
    colours = matplotlib.colormaps["viridis"]
    for row, point in enumerate(points):
        line = [heights[name][row] for name in names]
        colour = colours(norm(point.values[0]))
        axis.plot(range(len(names)), line, marker=".", color=colour, alpha=0.4 if point.pruned else 1.0)
    axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axis.set_yticks([])
    axis.set_xlim(-0.2, len(names) - 0.4)
    for place in range(len(names)):
        axis.axvline(place, color="grey", linewidth=0.5)
    figure.colorbar(matplotlib.cm.ScalarMappable(norm, colours), ax=axis, label=label)
    return figure


def pareto(points: Sequence[Point], front: Sequence[int], *, labels: tuple[str, str]) -> Figure:
    """Show two values against each other; ``front`` has the numbers of the trials that no other one beats in both."""
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axis = figure.subplots()
    whole = [point for point in points if len(point.values) > 1]
    axis.scatter([p.values[1] for p in whole], [p.values[0] for p in whole], color="lightgrey", label="other trials")
    best = sorted((point for point in whole if point.number in front), key=lambda point: point.values[1])
    axis.plot([p.values[1] for p in best], [p.values[0] for p in best], "o-", color="black", label="Pareto front")
    for point in best:
        axis.annotate(str(point.number), (point.values[1], point.values[0]), fontsize=7, xytext=(4, 3),
                      textcoords="offset points")  # fmt: skip
    axis.set_xlabel(labels[1])
    axis.set_ylabel(labels[0])
    axis.legend()
    return figure


def _scale(values: Sequence[Any], logarithmic: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Return heights between 0 and 1, NaN for what is missing, and some heights with what they mean."""
    given = [value for value in values if value is not None]
    if any(isinstance(value, str | bool) for value in given):
        kinds = sorted({str(value) for value in given})
        at = {kind: place / max(len(kinds) - 1, 1) for place, kind in enumerate(kinds)}
        return [np.nan if value is None else at[str(value)] for value in values], [(at[k], k) for k in kinds]
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    shown = np.log(numbers) if logarithmic else numbers
    low, high = np.nanmin(shown), np.nanmax(shown)
    heights = (shown - low) / ((high - low) or 1.0)
    ends = (float(np.nanmin(numbers)), float(np.nanmax(numbers)))
    return heights.tolist(), [(0.0, f"{ends[0]:.3g}"), (1.0, f"{ends[1]:.3g}")][: 2 if high > low else 1]
