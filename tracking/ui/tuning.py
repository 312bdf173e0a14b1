"""A search for good parameters: its course, what mattered, what was tried, and what cannot be had together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from stm_models.errors import InputError
from tracking import study
from tracking.rows import RunRow
from tracking.sqlite_address import path_of
from tracking.study import TrialRow
from tracking.trials import number_of, owned
from tracking.ui import svg
from tracking.ui.site import Site
from tracking.ui.svg import Plot
from tracking.ui.text import clip, finite, number
from tracking.ui.values import direction, task_of

__all__ = ["Search", "plots", "read", "searches"]

_MOST = 2000  # trials drawn


@dataclass(frozen=True)
class Search:
    """What is known of a study.

    Attributes
    ----------
    name : str
    run : RunRow
        The search's own run.
    metrics : sequence of str
        What a trial's values are called.
    larger : sequence of bool
        Whether a larger value is better.
    trials : sequence of TrialRow
        By number; the state of one ended early is pruned.
    logarithmic : frozenset of str
        Parameters that were drawn on a logarithmic scale.
    importances : dict of str to float, or None
    source : str
        Where the trials are from.
    front : sequence of int
        Of several values, the trials that none is better than in all.
    """

    name: str
    run: RunRow
    metrics: Sequence[str]
    larger: Sequence[bool]
    trials: Sequence[TrialRow]
    logarithmic: frozenset[str] = frozenset()
    importances: dict[str, float] | None = None
    source: str = "Optuna"
    front: Sequence[int] = field(default_factory=tuple)

    @property
    def best(self) -> TrialRow | None:
        """The complete trial with the best first value."""
        whole = [one for one in self.trials if one.state == "complete" and one.values and finite(one.values[0])]
        if not whole:
            return None
        sign = -1 if self.larger[0] else 1
        return min(whole, key=lambda one: sign * one.values[0])


def searches(site: Site) -> list[RunRow]:
    """Return the runs that are searches, the newest first."""
    rows = site.reader.read().rows
    parents = {row.parent for row in rows if "trial" in row.tags}
    return [row for row in rows if "study" in row.tags and "trial" not in row.tags and row.id in parents]


def read(site: Site, run_id: str) -> Search:
    """Return the search of a run: from the Optuna study or, where this cannot be read, from the trials' runs.

    Raises
    ------
    InputError
        When there is no such run, or it is no search.
    """
    snapshot = site.reader.read()
    row = site.runs([run_id])[run_id]
    if "study" not in row.tags:
        raise InputError(f"run {row.name[:80]} is no search: choose one in the list of searches")
    found = _optuna(site, row)
    metric = next((name.removeprefix("best_") for name in row.metrics if name.startswith("best_")), "value")
    if found is not None:
        metrics = [metric, "latency_ms"][: len(found.directions)]
        larger = [each.name == "MAXIMIZE" for each in found.directions]
        whole = found.get_trials(deepcopy=False)
        drawn = {name for trial in whole for name, one in trial.distributions.items() if getattr(one, "log", False)}
        trials = study.rows(found)[:_MOST]
        return Search(
            row.tags["study"], row, metrics, larger, trials, frozenset(drawn), study.importances(found),
            front=[trial.number for trial in found.best_trials] if len(larger) > 1 else (),
        )  # fmt: skip
    below = [one for one in snapshot.rows if one.parent == row.id]
    numbered = [(number, one) for one in below if (number := number_of(one.tags)) is not None]
    if metric == "value" and (task := task_of(row)) is not None:
        metric = task.metric
    others = [one for _, one in numbered]
    trials = sorted((_trial(*each, others, metric) for each in numbered), key=lambda one: one.number)[:_MOST]
    return Search(
        row.tags["study"], row, [metric], [bool(direction(task_of(row), metric))], trials, source="the runs alone"
    )


def plots(search: Search) -> dict[str, Markup]:
    """Draw a search."""
    drawn = {"history": _history(search), "parallel": _parallel(search)}
    result = {name: plot.render() for name, plot in drawn.items() if not plot.empty}
    if search.importances:
        result["importances"] = svg.bars("importance of the parameters", list(search.importances.items()))
    if len(search.metrics) > 1:
        result["pareto"] = _pareto(search).render()
    return result


def _history(search: Search) -> Plot:
    plot = Plot(f"history of {search.name}", "trial", search.metrics[0])
    whole = [(one.number, one.values[0]) for one in search.trials if one.state == "complete" and one.values]
    pruned = [(one.number, one.values[0]) for one in search.trials if one.state == "pruned" and one.values]
    best, steps = math.nan, []
    for trial, value in whole:
        better = value > best if search.larger[0] else value < best
        if better or math.isnan(best):
            steps += [] if math.isnan(best) else [(trial, best)]
            best = value
            steps.append((trial, best))
    if whole:
        steps.append((whole[-1][0], best))
    plot.line(steps, 2, "best so far")
    plot.dots(whole, 0, "complete")
    plot.dots(pruned, 1, "pruned", "cross")
    return plot


def _parallel(search: Search) -> Plot:
    """Draw every trial as a line over its parameters, each axis from the smallest to the largest value."""
    shown = [one for one in search.trials if one.state in ("complete", "pruned") and one.params and one.values]
    names = list(dict.fromkeys(name for one in shown for name in one.params))[:12]
    plot = Plot(
        "parallel coordinates", "parameter", search.metrics[0], max(520, 120 * (len(names) + 1)), 340, bare=True
    )
    heights: dict[str, dict[int, float]] = {}
    for place, name in enumerate(names):
        given = {one.number: one.params[name] for one in shown if name in one.params}
        heights[name], ends = _axis(given, name in search.logarithmic)
        plot.x_names[float(place)] = name.rpartition(".")[2]
        plot.notes += [(float(place), height, text) for height, text in ends]
    values = {one.number: one.values[0] for one in shown}
    placed, ends = _axis(values, False)
    plot.x_names[float(len(names))] = search.metrics[0]
    plot.notes += [(float(len(names)), height, text) for height, text in ends]
    ranked = sorted(values, key=lambda trial: values[trial], reverse=search.larger[0])
    good = set(ranked[: max(1, len(ranked) // 5)])
    plot.xs.append(len(names) + 0.45)  # room for the last axis' words
    for one in sorted(shown, key=lambda one: one.number in good):
        line = [
            (float(place), heights[name][one.number]) for place, name in enumerate(names) if one.number in heights[name]
        ]
        line.append((float(len(names)), placed[one.number]))
        words = f"trial {one.number} ({one.state}): {search.metrics[0]} {number(one.values[0])}"
        colour = 2 if one.number in good else 1 if one.state == "pruned" else 7
        plot.line(line, colour, words, "line" if one.number in good else "thin")
    return plot


def _axis(given: dict[int, Any], logarithmic: bool) -> tuple[dict[int, float], list[tuple[float, str]]]:
    if any(isinstance(value, str | bool) or value is None for value in given.values()):
        kinds = sorted({str(value) for value in given.values()})
        at = {kind: place / max(len(kinds) - 1, 1) for place, kind in enumerate(kinds)}
        return {trial: at[str(value)] for trial, value in given.items()}, [(at[kind], kind) for kind in kinds[:8]]
    numbers = {trial: float(value) for trial, value in given.items()}
    if logarithmic and min(numbers.values(), default=0) > 0:
        numbers = {trial: math.log(value) for trial, value in numbers.items()}
    else:
        logarithmic = False
    low, high = min(numbers.values(), default=0.0), max(numbers.values(), default=0.0)
    places = {trial: (value - low) / ((high - low) or 1.0) for trial, value in numbers.items()}
    ends = [(0.0, low)] + ([(1.0, high)] if high > low else [])
    return places, [(place, number(math.exp(value) if logarithmic else value)) for place, value in ends]


def _pareto(search: Search) -> Plot:
    plot = Plot(f"Pareto front of {search.name}", search.metrics[1], search.metrics[0])
    whole = [one for one in search.trials if one.state == "complete" and len(one.values) > 1]
    best = sorted((one for one in whole if one.number in search.front), key=lambda one: one.values[1])
    plot.dots([(one.values[1], one.values[0]) for one in whole], 7, "other trials")
    plot.line([(one.values[1], one.values[0]) for one in best], 0, "Pareto front")
    plot.dots([(one.values[1], one.values[0]) for one in best], 0, "Pareto front")
    plot.notes += [(one.values[1], one.values[0], str(one.number)) for one in best[:30]]
    return plot


def _optuna(site: Site, search: RunRow) -> Any:
    """Return a search's study; ``None`` where it cannot be read, or is somebody else's of the same name."""
    storage = site.studies or study.beside(site.store)
    try:
        if storage.startswith("sqlite") and not path_of(storage, "study storage").is_file():
            return None  # opening it would make it
        found = study.open_study(search.tags["study"], storage)
    except InputError:
        return None
    return found if owned(found, search) else None


def _trial(number: int, row: RunRow, others: Sequence[RunRow], metric: str) -> TrialRow:
    """Return a trial as its run tells it; its parameters are those in which the trials differ."""
    value = row.metrics.get(metric)
    params = {
        key: _number(text) for key, text in row.params.items() if len({one.params.get(key) for one in others}) > 1
    }
    state = row.outcome if row.outcome in ("complete", "pruned", "running") else "fail"
    values = () if value is None else (value,)
    return TrialRow(number, state, values, params, row.seconds, row.id)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return clip(text, 40)
