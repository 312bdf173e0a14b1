"""The page of the table, and its numbers as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from stm_models.errors import InputError, unknown
from tracking.ui import query, table
from tracking.ui.site import Site
from tracking.ui.table import Line, Table, View
from tracking.ui.text import clip, duration, number
from tracking.ui.values import OWN, Values, direction, task_of

__all__ = ["context", "csv", "read"]

_OWN = ("network", "experiment", "outcome", "digest", "seconds", "start", "id")
_MOST = 400  # columns to choose from
_BADGED = 200  # characters
_ROWS = 100  # of the page at first: a browser lays out a table of thousands for seconds


def read(site: Site, view: View) -> tuple[Values, Table, str]:
    """Return the runs, the table, and what is wrong with the search (an empty text for nothing).

    Raises
    ------
    InputError
        For an experiment that does not exist.
    """
    experiments = site.reader.experiments()
    if view.experiment and view.experiment not in experiments:
        raise unknown("experiment", view.experiment, experiments)
    values = site.values(view.experiment or None)
    keys = [*table.columns_of(values, view), view.sort, *query.keys(view.q)]
    metrics = [metric for key in keys if (metric := values.metric_of(key)) is not None]
    if site.store.remote and metrics:
        values = site.values(view.experiment or None, metrics)
    try:
        return values, table.build(values, view), ""
    except InputError as error:
        return values, Table([], table.columns_of(values, view), 0), str(error)


def csv(site: Site, view: View) -> str:
    """Return the table as CSV, nested runs too.

    Raises
    ------
    InputError
        For an experiment that does not exist, or a search that cannot be understood.
    """
    opened = View(view.experiment, view.q, view.sort, view.descending, view.columns, frozenset({"all"}), view.seeds)
    _, found, problem = read(site, opened)
    if problem:
        raise InputError(problem)
    return table.to_csv(found)


def context(site: Site, view: View) -> dict[str, Any]:
    """Return what the template needs."""
    values, found, problem = read(site, view)
    badges = site.badges()
    opened = "all" in view.opened
    lines = found.lines if view.whole else found.lines[:_ROWS]
    return {
        "view": view, "location": site.store.location, "experiments": site.reader.experiments(), "problem": problem,
        "address": view.address(), "unfold": view.address(opened=frozenset() if opened else frozenset({"all"})),
        "every_metric": view.address(columns=("all",)), "foldable": any(line.below for line in found.lines),
        "count": f"{found.runs:,}", "choices": _choices(values, view),
        "heads": [_head("name", view, values), *(_head(key, view, values) for key in found.columns)],
        "rows": [_row(line, view, found.columns, badges) for line in lines],
        "more": len(found.lines) - len(lines), "everything": view.address(whole=True),
    }  # fmt: skip


def cell(key: str, value: Any) -> str:
    """Return one cell of the table as HTML."""
    if value is None:
        return "<td></td>"
    if isinstance(value, tuple):
        mean, deviation, count = value
        words = f"{duration(mean)} ± {duration(deviation)}" if key == "seconds" else f"{number(mean)} ± {deviation:.2g}"
        return f'<td class="n" title="{count} runs">{words}</td>'
    if isinstance(value, float | int):
        return f'<td class="n">{duration(value) if key == "seconds" else number(value)}</td>'
    if key == "digest":
        return f"<td><code>{escape(value[:12])}</code></td>"
    return f"<td>{escape(clip(value))}</td>"


def _row(line: Line, view: View, columns: Sequence[str], badges: Mapping[str, list[str]]) -> dict[str, Any]:
    run = line.run
    # Numbers, and texts that were escaped one by one: a page has 50 000 of these.
    cells = Markup("".join([cell(key, value) for key, value in zip(columns, line.values, strict=True)]))  # noqa: S704
    toggle = None
    if line.below and not view.q:
        key = line.series if "~" in line.series else run.id
        opened = view.opened - {key, "all"} if line.opened else view.opened | {key}
        toggle = view.address(opened=frozenset(opened))
    about = f" · {line.below} runs, mean ± spread" if line.group else f" · {line.below} runs" if line.below else ""
    return {
        "id": run.id, "name": clip(run.name, 120), "depth": min(line.depth, 4), "series": line.series,
        "toggle": toggle, "expanded": "true" if line.opened else "false", "mark": "▾" if line.opened else "▸",
        "about": about, "cells": cells,
        # Of runs that are put together everyone's.
        "badges": [clip(text, _BADGED) for one in line.series.split("~") for text in badges.get(one, [])],
    }  # fmt: skip


def _head(key: str, view: View, values: Values) -> dict[str, str]:
    current = view.sort == key
    turned = current and not view.descending
    order = ("descending" if view.descending else "ascending") if current else ""
    sample = next((row for row in values.snapshot.rows if key in row.metrics), None)
    larger = None if sample is None else direction(task_of(sample), key)
    return {
        "title": OWN.get(key, key), "address": view.address(sort=key, descending=turned), "order": order,
        "better": {True: " ↑", False: " ↓", None: ""}[larger], "number": "1" if sample or key == "seconds" else "",
    }  # fmt: skip


def _choices(values: Values, view: View) -> list[str]:
    kinds = [*_OWN, *values.ordered(values.metrics)]
    kinds += [f"param.{name}" for name in values.params] + [f"tag.{name}" for name in values.tags]
    return list(dict.fromkeys([*(key for key in view.columns if key != "all"), *kinds]))[:_MOST]
