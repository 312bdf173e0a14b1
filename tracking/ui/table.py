"""The comparison table: which runs, in which order, with which columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracking.rows import RunRow

__all__ = ["Line", "Table", "build", "network"]

_FIRST = (
    "mae",
    "rmse",
    "r2",
    "unseen_mae",
    "unseen_rmse",
    "unseen_r2",
    "f1",
    "precision",
    "recall",
    "error_px",
)


@dataclass(frozen=True)
class Line:
    """One row of the table; ``depth`` is 0 for a run that is nested in none that is shown."""

    run: RunRow
    depth: int


@dataclass(frozen=True)
class Table:
    """Rows in display order and the names of the metrics that have a column."""

    lines: Sequence[Line]
    metrics: Sequence[str]


def build(rows: Sequence[RunRow], query: str = "", sort: str = "", descending: bool = False) -> Table:
    """Choose, order and nest the rows.

    Parameters
    ----------
    query : str
        Keep runs with this text in their name, outcome, id, parameters or tags, and those around them.
    sort : str
        ``name``, ``experiment``, ``outcome``, ``network``, ``digest``, ``seconds`` or a metric; else the
        newest run is first. Runs without a value come last either way; nested runs stay below their parent.
    """
    by_id = {row.id: row for row in rows}
    kept = {row.id for row in rows if _matches(row, query.casefold())}
    for row in rows:
        parent = row.parent if row.id in kept else None
        while parent in by_id and parent not in kept:
            kept.add(parent)
            parent = by_id[parent].parent
    children: dict[str | None, list[RunRow]] = {}
    for row in rows:
        if row.id in kept:
            children.setdefault(row.parent if row.parent in kept else None, []).append(row)
    lines: list[Line] = []
    pending = [Line(row, 0) for row in reversed(_order(children.get(None, []), sort, descending))]
    while pending:
        line = pending.pop()
        lines.append(line)
        below = _order(children.get(line.run.id, []), sort, descending)
        pending += [Line(row, line.depth + 1) for row in reversed(below)]
    names = {name for line in lines for name in line.run.metrics if not name.startswith("system/")}
    metrics = [name for name in _FIRST if name in names] + sorted(names - set(_FIRST))
    return Table(lines, metrics)


def network(row: RunRow) -> str:
    """Return the name of the network that a run trained, or an empty text."""
    named: list[Mapping[str, str]] = [row.tags, row.params]
    for values in named:
        for key, text in values.items():
            if key.rpartition(".")[2] == "network":
                return text
    return ""


def _order(rows: list[RunRow], sort: str, descending: bool) -> list[RunRow]:
    if not sort:
        return sorted(rows, key=lambda row: row.start, reverse=True)
    keyed = [(value, row) for row in rows if (value := _value(row, sort)) is not None]
    keyed.sort(key=lambda pair: pair[0], reverse=descending)
    return [row for _, row in keyed] + [row for row in rows if _value(row, sort) is None]


def _value(row: RunRow, sort: str) -> Any:
    texts = {
        "name": row.name, "experiment": row.experiment, "outcome": row.outcome, "network": network(row),
        "digest": row.tags.get("data.digest", ""),
    }  # fmt: skip
    if sort in texts:
        return texts[sort].casefold() or None
    value = row.seconds if sort == "seconds" else row.metrics.get(sort)
    return None if value is None or value != value else value


def _matches(row: RunRow, query: str) -> bool:
    texts = [row.name, row.experiment, row.outcome, row.id, *row.params.values(), *row.tags.values()]
    return any(query in text.casefold() for text in texts)
