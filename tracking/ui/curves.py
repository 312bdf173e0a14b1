"""Plots of metrics: learning curves with bands over seeds, and how robust runs are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tracking.rows import RunRow
from tracking.ui.series import Series
from tracking.ui.site import Site
from tracking.ui.svg import Plot
from tracking.ui.text import deviation, mean_of
from tracking.ui.values import task_of

__all__ = ["curve", "learning", "robustness", "stepped"]

_STRENGTH = re.compile(r"(?P<set>[\w-]+):(?P<strength>\d+(?:\.\d+)?)\.(?P<metric>\w+)")


def stepped(found: Sequence[Series]) -> list[str]:
    """Return the metrics that were logged at several steps, that of the validation first."""
    rows = [row for one in found for row in one.members]
    names = {name for row in rows for name, step in row.steps.items() if step > 0 and not name.startswith("system/")}
    first = {f"val_{task.metric}" for row in rows if (task := task_of(row)) is not None}
    return sorted(names, key=lambda name: (name not in first, not name.startswith("val_"), name))


def learning(site: Site, found: Sequence[Series], metric: str, logarithmic: bool) -> Plot:
    """Draw a metric over the steps; of several seeds mean and standard deviation, each seed thin.

    A logarithmic axis leaves out what is not positive; the plot's remark says how many values these are.
    """
    plot = Plot(f"{metric} over the epochs", "epoch", metric, log_y=logarithmic)
    histories = site.reader.history([row.id for one in found for row in one.members], metric)
    for one in found:
        curves = [histories[row.id] for row in one.members if row.id in histories]
        curve(plot, curves, one.number, one.label)
    lost = sum(value <= 0 for points in histories.values() for _, value in points) if logarithmic else 0
    if lost:
        plot.remark = f"{lost:,} {'value' if lost == 1 else 'values'} ≤ 0 not shown on the logarithmic axis"
    return plot


def curve(plot: Plot, curves: Sequence[Sequence[tuple[float, float]]], number: int, label: str) -> None:
    """Add one series: a line, or mean, band and thin lines of several."""
    if len(curves) < 2:
        for points in curves:
            plot.line(points, number, label)
            if len(points) < 3:
                plot.dots(points, number, label)
        return
    by_step: dict[float, list[float]] = {}
    for points in curves:
        for step, value in points:
            by_step.setdefault(step, []).append(value)
    # Steps that only some seeds have reached would bend the mean.
    common = sorted((step, values) for step, values in by_step.items() if len(values) == len(curves))
    means = [(step, mean_of(values)) for step, values in common]
    spread = [(step, mean, deviation(values)) for (step, mean), (_, values) in zip(means, common, strict=True)]
    lows = [(step, max(mean - width, 1e-9 * abs(mean)) if plot.log_y else mean - width, mean + width)
            for step, mean, width in spread]  # fmt: skip
    plot.band(lows, number)
    for points in curves:
        plot.line(points, number, label, "thin")
    plot.line(means, number, f"{label}: mean")


def robustness(found: Sequence[Series]) -> list[Plot]:
    """Draw the deciding metric on every perturbation set and, where it was logged, over their strength."""
    task = next((task for one in found if (task := task_of(one.run)) is not None), None)
    if task is None:
        return []
    names = ["clean", *(one.name for one in task.perturbations() if one.judged and one.name != "clean")]
    metric = task.metric
    plot = Plot(f"{metric} on every perturbation set", "perturbation set", metric)
    for one in found:
        lists = [_sets(row, names, metric) for row in one.members]
        curves = [[(float(names.index(name)), value) for name, value in values.items()] for values in lists if values]
        curve(plot, curves, one.number, one.label)
        for points in curves:
            plot.dots(points, one.number, one.label)
    plot.x_names = {float(number): name for number, name in enumerate(names) if float(number) in plot.xs}
    strengths: dict[str, Plot] = {}
    for one in found:
        for name, curves in _strengths(one.members, metric).items():
            own = strengths.setdefault(
                name, Plot(f"{metric} over the strength of {name}", f"strength of {name}", metric)
            )
            curve(own, curves, one.number, one.label)
            for points in curves:
                own.dots(points, one.number, one.label)
    return [each for each in (plot, *strengths.values()) if len(set(each.xs)) > 1]


def _sets(row: RunRow, names: Sequence[str], metric: str) -> dict[str, float]:
    for before in ("unseen_", ""):
        found = {name: row.metrics[key] for name in names if (key := f"{before}{name}.{metric}") in row.metrics}
        if found and "clean" not in found and f"{before}{metric}" in row.metrics:
            found = {"clean": row.metrics[f"{before}{metric}"], **found}
        if len(found) > 1:
            return found
    return {}


def _strengths(rows: Sequence[RunRow], metric: str) -> Mapping[str, list[list[tuple[float, float]]]]:
    result: dict[str, list[list[tuple[float, float]]]] = {}
    for row in rows:
        own: dict[str, list[tuple[float, float]]] = {}
        for name, value in row.metrics.items():
            match = _STRENGTH.fullmatch(name)
            if match and match["metric"] == metric:
                own.setdefault(match["set"], []).append((float(match["strength"]), value))
        for name, points in own.items():
            known = ((0.0, f"clean.{metric}"), (0.0, metric), (1.0, f"{name}.{metric}"))
            beside = {strength: row.metrics[key] for strength, key in reversed(known) if key in row.metrics}
            result.setdefault(name, []).append(sorted([*points, *beside.items()]))
    return result
