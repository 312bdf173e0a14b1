"""The table of runs: which ones, in which order, with which columns; nothing of it is HTML yet."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from tracking.rows import RunRow
from tracking.ui import query
from tracking.ui.grouping import REPEATS, Group, alike, nested
from tracking.ui.text import deviation, mean_of, plain_cell
from tracking.ui.values import Values

__all__ = ["Line", "Table", "View", "build", "columns_of", "to_csv"]

_FEW = 8  # metrics shown unless others are chosen
_FIRST = ("outcome", "network", "digest", "seconds")


@dataclass(frozen=True)
class View:
    """What the address of a table says.

    Attributes
    ----------
    experiment, q, sort : str
        Empty for all, none, newest first.
    columns : tuple of str
        Empty for the usual ones; ``all`` for every metric.
    opened : frozenset of str
        Runs and groups whose nested runs are shown; ``all`` opens every one.
    seeds : bool
        Whether runs that differ by seed alone are put together.
    whole : bool
        Whether every row is shown, not the first ones alone.
    """

    experiment: str = ""
    q: str = ""
    sort: str = ""
    descending: bool = False
    columns: tuple[str, ...] = ()
    opened: frozenset[str] = frozenset()
    seeds: bool = False
    whole: bool = False

    @classmethod
    def of(cls, asked: Sequence[tuple[str, str]]) -> View:
        """Read the parameters of an address."""
        one = {key: text.strip() for key, text in asked}
        return cls(
            one.get("experiment", ""), one.get("q", ""), one.get("sort", ""), one.get("desc") == "1",
            tuple(dict.fromkeys(text for key, text in asked if key == "c" and text)),
            frozenset(text for key, text in asked if key == "open" and text), one.get("seeds") == "1",
            one.get("rows") == "all",
        )  # fmt: skip

    def address(self, **changes: Any) -> str:
        """Return the parameters of this view's address, with some of it changed."""
        view = replace(self, **changes)
        asked = [("experiment", view.experiment), ("q", view.q), ("sort", view.sort)]
        asked += [("desc", "1" if view.descending else ""), ("seeds", "1" if view.seeds else "")]
        asked += [("rows", "all" if view.whole else "")]
        asked += [("c", name) for name in view.columns] + [("open", name) for name in sorted(view.opened)]
        return urlencode([(key, text) for key, text in asked if text])


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes
    ----------
    run : RunRow
    depth : int
        0 for a run that is nested in none that is shown.
    values : sequence
        One per column: a number, a text, (mean, standard deviation, number of runs) or ``None``.
    series : str
        What the comparison is asked for: a run's id, or those of a group.
    below : int
        Number of runs that it can show below it.
    opened : bool
        Whether it shows them.
    group : bool
        Whether it stands for runs with different seeds.
    """

    run: RunRow
    depth: int
    values: Sequence[Any]
    series: str
    below: int = 0
    opened: bool = False
    group: bool = False


@dataclass(frozen=True)
class Table:
    """Lines in display order, the columns' keys, and how many runs there are in all."""

    lines: Sequence[Line]
    columns: Sequence[str]
    runs: int


def build(values: Values, view: View) -> Table:
    """Choose, group, order and nest the runs of a snapshot.

    Runs around one that satisfies the search are kept; without a value they come last, whichever the order.

    Raises
    ------
    InputError
        For a search that cannot be understood.
    """
    rows = values.snapshot.rows
    kept = query.keep(rows, view.q, values) if view.q else list(rows)
    if view.q:
        kept = _with_parents(kept, values.snapshot.by_id)
    columns = columns_of(values, view)
    children = nested(kept)
    whole = nested(rows)
    lines: list[Line] = []
    top: list[Group | RunRow] = list(children.get(None, []))
    if view.seeds:
        flat = [row for row in children.get(None, []) if row.id not in whole]
        top = [*(row for row in children.get(None, []) if row.id in whole), *alike(flat)]
    pending = [(one, 0) for one in reversed(_order(top, values, view, whole))]
    while pending:
        one, depth = pending.pop()
        line, below = _line(one, depth, values, view, columns, children, whole)
        lines.append(line)
        if line.opened:
            pending += [(row, depth + 1) for row in reversed(_order(below, values, view, whole))]
    return Table(lines, columns, len(kept))


def columns_of(values: Values, view: View) -> list[str]:
    """Return the keys of the columns beside the run's name."""
    if view.columns and view.columns != ("all",):
        return list(view.columns)
    metrics = values.ordered(values.metrics)
    return [*_FIRST, *(metrics if view.columns else metrics[:_FEW])]


def to_csv(table: Table) -> str:
    """Return the lines as CSV; a group's metric is its mean, with its standard deviation in a column of its own."""
    groups = any(line.group for line in table.lines)
    file = io.StringIO()
    writer = csv.writer(file)
    extra = [f"{name}_std" for name in table.columns] if groups else []
    writer.writerow([plain_cell(text) for text in ("id", "name", "experiment", *table.columns, *extra)])
    for line in table.lines:
        means = [value[0] if isinstance(value, tuple) else value for value in line.values]
        spreads = [value[1] if isinstance(value, tuple) else None for value in line.values] if groups else []
        cells = [line.series if line.group else line.run.id, line.run.name, line.run.experiment, *means, *spreads]
        writer.writerow([plain_cell(value) for value in cells])
    return file.getvalue()


def _line(
    one: Group | RunRow, depth: int, values: Values, view: View, columns: Sequence[str],
    children: Mapping[str | None, list[RunRow]], whole: Mapping[str | None, list[RunRow]],
) -> tuple[Line, list[RunRow]]:  # fmt: skip
    if isinstance(one, Group):
        opened = bool(view.opened & {"all", one.key})
        cells = [_common(one.members, key, values) for key in columns]
        return Line(one.run, depth, cells, one.key, len(one.members), opened, True), list(one.members)
    below = children.get(one.id, [])
    members = whole.get(one.id, []) if REPEATS in one.tags else []
    if members:
        cells = [_spread(one, members, key, values) for key in columns]
    else:
        cells = [values.shown(one, key) for key in columns]
    # What a search has found is shown.
    opened = bool(below) and (bool(view.q) or bool(view.opened & {"all", one.id}))
    return Line(one, depth, cells, one.id, len(below), opened, bool(members)), below


def _spread(own: RunRow, members: Sequence[RunRow], key: str, values: Values) -> Any:
    found = [values.shown(row, key) for row in members]
    mean = None if key == "seconds" else _mean(found)
    if mean is None:
        mine = values.shown(own, key)
        return mine if mine is not None or not found else found[0] if len(set(found)) == 1 else None
    return mean


def _common(members: Sequence[RunRow], key: str, values: Values) -> Any:
    """Return what a column has for runs that none stands for: what is not so for all of them is not shown."""
    found = [values.shown(row, key) for row in members]
    mean = _mean(found)
    if mean is not None or len({repr(value) for value in found}) == 1:
        return mean or found[0]
    counts = Counter(found)
    return ", ".join(f"{count} {text}" for text, count in counts.most_common()) if key == "outcome" else None


def _mean(found: Sequence[float | str | None]) -> tuple[float, float, int] | None:
    numbers = [value for value in found if isinstance(value, float) and value == value]
    return (mean_of(numbers), deviation(numbers), len(numbers)) if numbers else None


def _with_parents(kept: Sequence[RunRow], by_id: Mapping[str, RunRow]) -> list[RunRow]:
    found = {row.id: row for row in kept}
    for row in kept:
        parent = row.parent
        while parent is not None and parent in by_id and parent not in found:
            found[parent] = by_id[parent]
            parent = by_id[parent].parent
    return [row for row in by_id.values() if row.id in found]


def _order(
    found: Sequence[Group | RunRow], values: Values, view: View, whole: Mapping[str | None, list[RunRow]]
) -> list[Group | RunRow]:
    def run(one: Group | RunRow) -> RunRow:
        return one.run if isinstance(one, Group) else one

    def value(one: Group | RunRow) -> tuple[int, Any] | None:
        own = run(one)
        cell: Any
        if isinstance(one, Group) and view.sort not in ("name", "start"):  # by these it is called and placed
            cell = _common(one.members, view.sort, values)
        else:
            members = whole.get(own.id, []) if REPEATS in own.tags else []
            cell = _spread(own, members, view.sort, values) if members else values.shown(own, view.sort)
        cell = cell[0] if isinstance(cell, tuple) else cell
        if isinstance(cell, str):
            try:
                cell = float(cell)
            except ValueError:
                return (1, cell.casefold())
        return None if cell is None or cell != cell else (0, cell)

    if not view.sort:
        return sorted(found, key=lambda one: run(one).start, reverse=True)
    keyed = [(value(one), one) for one in found]
    known = [(cell, one) for cell, one in keyed if cell is not None]
    known.sort(key=lambda pair: pair[0], reverse=view.descending)
    return [one for _, one in known] + [one for cell, one in keyed if cell is None]
