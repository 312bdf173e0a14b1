"""Figures of a reproduction of arXiv 2602.18890: errors, similarity, components, states needed, rings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from stm_models.figures import dataset
from stm_models.signal.similarity import Similarity, principal_components
from stm_models.tasks.hubbard.reproduction_plan import TEST, TEST_U
from stm_models.tasks.inputs import Axes

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["figures"]


def figures(report: Mapping[str, Any], samples: Samples) -> dict[str, Figure]:
    """Return them by file name; ``samples`` are those of the test at the same U."""
    spec, target = samples.attributes["input"], samples.attributes["targets"][0]
    about = {"label": target["name"], "unit": target["unit"]}
    alike = report["similarity"]
    shape = spec["height"], spec["width"]
    axes = Axes.of_centres(spec["kx_max"], spec["ky_max"], shape, ("kx (1/a)", "ky (1/a)"))
    matrix = np.array(alike["matrix"])
    empty = np.zeros(len(matrix))
    drawn = {
        "errors": _errors(report),
        "similarity": dataset.similarity_matrix(
            Similarity(matrix, empty, empty.astype(np.int64)), np.array(alike["levels"]), **about
        ),
        "components": dataset.components(
            principal_components(samples.images, 3), samples.targets[:, 0], axes=axes, **about
        ),
    }  # fmt: skip
    if report["efficiency"]:
        drawn["efficiency"] = _efficiency(report["efficiency"])
    if report["rings"]:
        drawn["rings"] = _rings(report["rings"])
    return drawn


def _errors(report: Mapping[str, Any]) -> Figure:
    """MAE of every method on every test, with one standard deviation over the seeds."""
    names, table = report["sets"]["tests"], report["table"]
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    panel = figure.subplots()
    for number, (method, row) in enumerate(table.items()):
        cells = [row["sets"][name]["mae"] for name in names]
        places = np.arange(len(names)) + 0.7 * (number / max(len(table) - 1, 1) - 0.5)
        panel.errorbar(
            places, [one["mean"] for one in cells], [one["deviation"] for one in cells],
            fmt="o" if row["runs"] else "s", ms=4, lw=1, color=f"C{number % 10}",
            mfc="none" if number >= 10 else None, label=method,
        )  # fmt: skip
    panel.set_xticks(range(len(names)), names, rotation=20, fontsize=8)
    panel.set(yscale="log", ylabel="MAE of U (eV)", title="circles: trained; squares: without training")
    panel.title.set_fontsize(9)
    panel.grid(axis="y", which="both", lw=0.3)
    figure.legend(fontsize=7, loc="outside right upper")
    return figure


def _efficiency(curves: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, test in zip(panels, (TEST, TEST_U), strict=True):
        for method, rows in curves.items():
            cells = [row[test]["mae"] for row in rows]
            panel.errorbar(
                [row["fraction"] for row in rows], [one["mean"] for one in cells], [one["deviation"] for one in cells],
                fmt="o-", ms=4, lw=1.2, label=method,
            )  # fmt: skip
        panel.set(xscale="log", yscale="log", xlabel="share of the states trained on", title=test)
        shares = [row["fraction"] for row in next(iter(curves.values()))]
        panel.set_xticks(shares, [f"{share:g}" for share in shares])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(which="both", lw=0.3)
    panels[0].set_ylabel("MAE of U (eV)")
    panels[0].legend(fontsize=7)
    return figure


def _rings(rings: Mapping[str, Any]) -> Figure:
    """MAE without each ring, and of each ring alone; the whole image's as a dotted line."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    limits = np.array(rings["edges"])
    texts = {"without": "this ring as in the mean image", "alone": "all but this ring as in the mean image"}
    for panel, (kind, text) in zip(panels, texts.items(), strict=True):
        for number, (method, row) in enumerate(rings["methods"].items()):
            colour = f"C{number % 10}"
            panel.plot(
                (limits[:-1] + limits[1:]) / 2, [one["mean"] for one in row[kind]], "o-" if number < 10 else "o--",
                ms=3, lw=1, color=colour, label=method,
            )  # fmt: skip
            panel.axhline(row["whole"]["mean"], color=colour, ls=":", lw=0.6)
        if kind == "alone":
            cells = [one["mae"] for one in rings["fitted"]]
            panel.errorbar(
                (limits[:-1] + limits[1:]) / 2, [one["mean"] for one in cells], [one["deviation"] for one in cells],
                fmt="ks-", ms=4, lw=1.4, label="kernel ridge fitted to the ring",
            )  # fmt: skip
        panel.set(xlabel="|k| (1/a)", yscale="log", title=text)
        panel.title.set_fontsize(9)
    panels[0].set_ylabel("MAE of U, unseen values (eV)")
    figure.legend(*panels[1].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    return figure
