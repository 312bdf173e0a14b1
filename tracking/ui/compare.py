"""The comparison of chosen runs: what differs, how good each is, and plots of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from stm_models.errors import InputError, unknown
from tracking.ui import curves, differences, scatter, series
from tracking.ui.series import Series
from tracking.ui.site import Site
from tracking.ui.svg import COLOURS, Plot
from tracking.ui.text import clip, spread
from tracking.ui.values import direction, task_of

__all__ = ["Asked", "context", "drawn", "legend", "plot_of"]

_SCORES = 40
_SWATCH = Markup(
    '<svg viewBox="0 0 24 10" aria-hidden="true">'
    '<path class="line c{} d{}" fill="none" stroke-width="3" d="M0 5H24"/></svg>'
)


@dataclass(frozen=True)
class Asked:
    """What the address of a comparison says; metric, scale and set are chosen for it where they are empty."""

    runs: tuple[str, ...] = ()
    metric: str = ""
    scale: str = ""
    samples: str = ""
    everything: bool = False

    @classmethod
    def of(cls, asked: Sequence[tuple[str, str]]) -> Asked:
        """Read the parameters of an address."""
        one = {key: text.strip() for key, text in asked}
        runs = tuple(part for key, text in asked if key == "runs" for part in text.split(",") if part)
        return cls(
            tuple(dict.fromkeys(runs)), one.get("metric", ""), one.get("scale", ""), one.get("set", ""),
            one.get("all") == "1",
        )  # fmt: skip

    def address(self, **more: str) -> str:
        """Return the parameters of this comparison's address."""
        asked = {"runs": ",".join(self.runs), "metric": self.metric, "scale": self.scale}
        asked |= {"set": self.samples, "all": "1" if self.everything else ""} | more
        return urlencode({key: text for key, text in asked.items() if text}, safe=",~")


def context(site: Site, asked: Asked) -> dict[str, Any]:
    """Return what the template needs.

    Raises
    ------
    InputError
        When a run does not exist, or a metric or set was not logged by any.
    """
    found = series.read(site, asked.runs)
    metrics = curves.stepped(found)
    sets = scatter.read(site, found)
    plots = drawn(site, found, asked, metrics, sets)
    return {
        "asked": asked, "series": found, "legend": legend(found), "metrics": metrics, "sets": list(sets),
        "metric": asked.metric or (metrics[0] if metrics else ""), "set": _chosen(asked.samples, list(sets), "set"),
        "lines": differences.differences(found, asked.everything) if found else [],
        "scores": _scores(found, site), "address": asked.address(),
        "plots": [
            {"name": name, "svg": plot.render(), "title": plot.title, "remark": plot.remark,
             "address": asked.address(plot=name)}
            for name, plot in plots.items()
        ],
    }  # fmt: skip


def drawn(
    site: Site, found: Sequence[Series], asked: Asked, metrics: Sequence[str], sets: scatter.Sets
) -> dict[str, Plot]:
    """Return the plots by name, those that show nothing left out.

    Parameters
    ----------
    site : Site
        Where the histories of metrics are read.
    found : sequence of Series
    asked : Asked
        Its metric and set are drawn, or the first ones. An empty scale is logarithmic for a metric that is to become
        small.
    metrics : sequence of str
        Those of ``found`` that were logged at several steps, as `curves.stepped` gives them.
    sets : Sets
        What was logged of their predictions, as `scatter.read` gives it.

    Returns
    -------
    dict of str to Plot
        ``learning``, those of `scatter.plots` and ``robustness_N``.

    Raises
    ------
    InputError
        When the metric or set that is asked for is not among these.
    """
    plots: dict[str, Plot] = {}
    metric = _chosen(asked.metric, metrics, "metric")
    if metric:
        # What is to become small is better seen on a logarithmic scale.
        smaller = direction(task_of(found[0].run), metric) is False
        plots["learning"] = curves.learning(
            site, found, metric, asked.scale == "log" or (smaller and asked.scale != "linear")
        )
        if plots["learning"].empty:  # nothing positive
            plots["learning"] = curves.learning(site, found, metric, False)
            plots["learning"].remark = "no value above 0 for a logarithmic axis" if asked.scale == "log" else ""
    samples = _chosen(asked.samples, list(sets), "set")
    if samples:
        plots |= scatter.plots(found, sets, samples)
    for plot in curves.robustness(found):
        plots[f"robustness_{len(plots)}"] = plot
    return {name: plot for name, plot in plots.items() if not plot.empty}


def legend(found: Sequence[Series]) -> list[dict[str, Any]]:
    """Return a name with a line of its colour for every series."""
    return [
        {
            "label": one.label, "id": one.run.id,
            "mark": _SWATCH.format(one.number % COLOURS, one.number // COLOURS % 3),
        }
        for one in found
    ]  # fmt: skip


def _scores(found: Sequence[Series], site: Site) -> list[dict[str, Any]]:
    if not found:
        return []
    metrics = differences.measured(found, site.values())[:_SCORES]
    values = site.values(None, metrics, {row.id for one in found for row in one.members})
    return [
        {
            "metric": clip(one.metric, 80), "better": {True: " ↑", False: " ↓", None: ""}[one.larger],
            "cells": [(spread(each) if each else "", one.best == place) for place, each in enumerate(one.values)],
        }
        for one in differences.scores(found, values, metrics)
    ]  # fmt: skip


def _chosen(name: str, choices: Sequence[str], what: str) -> str:
    if name and name not in choices:
        raise unknown(what, name[:80], choices)
    return name or (choices[0] if choices else "")


def plot_of(site: Site, asked: Asked, name: str) -> Plot:
    """Return one plot of a comparison by its name.

    Raises
    ------
    InputError
        When there is no such plot.
    """
    found = series.read(site, asked.runs)
    plots = drawn(site, found, asked, curves.stepped(found), scatter.read(site, found))
    if name not in plots:
        raise InputError(f"this comparison has no plot {name[:60]!r}: it has {', '.join(plots) or 'none'}")
    return plots[name]
