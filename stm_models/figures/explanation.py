"""Figures of explanations: how faithful they are, their mean over a quantity, and where attention goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.explain.attention import Attention
from stm_models.tasks.inputs import Axes

__all__ = ["attention", "faithfulness", "mean_maps"]

Array = NDArray[Any]
_COLUMNS = 4


def faithfulness(scores: Sequence[Mapping[str, Any]], *, unit: str) -> Figure:
    """Show how far the answer still is from where it goes while pixels go, or come: means over the explained images.

    Parameters
    ----------
    scores : sequence of mapping
        Of each image ``methods``: by name, records of `stm_models.explain.faithfulness.Curves`.
    unit : str
        Of the answer.
    """
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    texts = {"deletion": "deletion: to the reference's answer", "insertion": "insertion: to the image's answer"}
    for panel, (kind, title) in zip(panels, texts.items(), strict=True):
        for method in scores[0]["methods"]:
            records = [one["methods"][method] for one in scores]
            panel.plot(records[0]["curves"]["fraction"], _distance(records, kind), lw=1.2, label=method)
        panel.plot(
            records[0]["curves"]["fraction"], _distance(records, f"random_{kind}"), "k--", lw=0.9, label="random order"
        )
        panel.set(xlabel=f"share of the pixels {'removed' if kind == 'deletion' else 'inserted'}", title=title)
        panel.title.set_fontsize(9)
    panels[0].set_ylabel("distance of the answer" + ("" if unit == "1" else f" ({unit})") + ", lower is better")
    panels[1].legend(fontsize=7)
    return figure


def mean_maps(maps: Array, titles: Sequence[str], *, axes: Axes, title: str, unit: str) -> Figure:
    """Show maps side by side on one scale of colours, red where positive.

    Parameters
    ----------
    maps : (B, C, H, W)
        Their sum over channels is shown, and ``title`` says so.
    titles : sequence of str
        Of each.
    axes : Axes
    title, unit : str
        Of all.
    """
    summed = ", sum over channels" if maps.shape[1] > 1 else ""
    maps = maps.sum(axis=1)
    columns = min(_COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(2.3 * columns + 0.9, 2.3 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    limit = float(np.abs(maps).max(initial=0.0)) or 1.0
    colours = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    for panel, values, text in zip(grid, maps, titles, strict=False):
        panel.imshow(values, cmap=colours.cmap, norm=colours.norm, extent=axes.extent, origin="lower", aspect="auto")
        panel.set_title(text, fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in grid[len(maps) :]:
        panel.set_axis_off()
    figure.supxlabel(axes.labels[0], fontsize=8)
    figure.supylabel(axes.labels[1], fontsize=8)
    figure.suptitle(title + summed, fontsize=9)
    figure.colorbar(colours, ax=list(grid), label=unit, shrink=0.8)
    return figure


def attention(found: Attention, *, method: str, quantity: str, unit: str) -> Figure:
    """Show the share of each region over the quantity with its 95 % band, and the area's share as a dotted line."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    panel = figure.subplots()
    for number, name in enumerate(found.names):
        (line,) = panel.plot(found.centres, found.mean[:, number], "o-", ms=3.5, lw=1.2, label=name)
        panel.fill_between(
            found.centres, found.low[:, number], found.high[:, number], color=line.get_color(), alpha=0.2, lw=0
        )
        panel.axhline(found.areas[number], color=line.get_color(), ls=":", lw=0.8)
    crossover = found.crossover
    if crossover is not None and crossover.value is not None and crossover.interval is not None:
        panel.axvline(crossover.value, color="k", lw=0.8)
        panel.axvspan(*crossover.interval, color="k", alpha=0.1, lw=0)
    panel.set(
        xlabel=quantity if unit == "1" else f"{quantity} ({unit})", ylabel="share of |map|", ylim=(0, None),
        title=f"{method}; dotted: share of the area",
    )  # fmt: skip
    panel.title.set_fontsize(9)
    panel.legend(fontsize=7)
    return figure


def _distance(records: Sequence[Mapping[str, Any]], name: str) -> Array:
    goal = "answer_to_reference" if name.endswith("deletion") else "answer"
    return np.mean([np.abs(np.array(one["curves"][name]) - one[goal]) for one in records], axis=0)
