"""Runs straight from the database that MLflow keeps them in: a few queries for all of them, only what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy import bindparam, text

from stm_models.errors import InputError
from tracking.passwords import redact
from tracking.rows import RunRow, duration, moment
from tracking.store import first_line

__all__ = ["Database"]

_RUNS = text(
    "SELECT run_uuid, name, experiment_id, status, start_time, end_time FROM runs "
    "WHERE experiment_id IN :experiments AND lifecycle_stage = 'active' ORDER BY start_time DESC, run_uuid"
)
_TAGS = text(
    "SELECT t.run_uuid, t.key, t.value FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid "
    "WHERE r.experiment_id IN :experiments AND r.lifecycle_stage = 'active'"
)
# What tells whether metrics or parameters of a run have changed, without reading them. No sums: those of times in
# nanoseconds, or of infinity, which MLflow keeps as 1.8e308, are beyond what a database adds up.
_MARKS = text(
    "SELECT t.run_uuid, COUNT(*), MAX(t.timestamp), MAX(t.step), MIN(t.value), MAX(t.value) "
    "FROM latest_metrics t JOIN runs r ON r.run_uuid = t.run_uuid "
    "WHERE r.experiment_id IN :experiments AND r.lifecycle_stage = 'active' GROUP BY t.run_uuid"
)
_COUNTS = text(
    "SELECT t.run_uuid, COUNT(*) FROM metrics t JOIN runs r ON r.run_uuid = t.run_uuid "
    "WHERE r.experiment_id IN :experiments AND r.lifecycle_stage = 'active' GROUP BY t.run_uuid"
)
_PARAMETERS = text(
    "SELECT t.run_uuid, COUNT(*) FROM params t JOIN runs r ON r.run_uuid = t.run_uuid "
    "WHERE r.experiment_id IN :experiments AND r.lifecycle_stage = 'active' GROUP BY t.run_uuid"
)
_LATEST = "SELECT run_uuid, key, value, is_nan, step FROM latest_metrics WHERE run_uuid IN :runs"
_VALUES = "SELECT run_uuid, key, value FROM params WHERE run_uuid IN :runs"
# A number before or after a NaN is the best value, too: NaN, which has no place among others, counts as logged.
_EXTREMES = (
    "SELECT run_uuid, key, MIN(CASE WHEN is_nan = :no THEN value END), MAX(CASE WHEN is_nan = :no THEN value END) "
    "FROM metrics WHERE run_uuid IN :runs GROUP BY run_uuid, key HAVING COUNT(*) > 1"
)
_EXPERIMENTS = text(
    "SELECT e.experiment_id, e.name FROM experiments e WHERE e.lifecycle_stage = 'active' AND (e.name <> 'Default' OR "
    "EXISTS (SELECT 1 FROM runs r WHERE r.experiment_id = e.experiment_id AND r.lifecycle_stage = 'active')) "
    "ORDER BY e.creation_time DESC"
)
_HISTORY = text(
    "SELECT run_uuid, step, value, is_nan FROM metrics WHERE run_uuid IN :runs AND key = :key ORDER BY step, timestamp"
)
_CHANGES = {"sqlite": "PRAGMA data_version", "postgresql": "SELECT CAST(pg_current_snapshot() AS TEXT)"}
_PART = 500  # runs a query

Extremes = dict[str, tuple[float, float]]


class Database:
    """The tables of one store, read and never written; not for several threads at once."""

    def __init__(self, uri: str) -> None:
        self._where = redact(uri)
        local = uri.startswith("sqlite")
        self._engine = sqlalchemy.create_engine(
            uri, connect_args={"check_same_thread": False} if local else {}, pool_pre_ping=not local,
            poolclass=sqlalchemy.pool.StaticPool if local else None,
            isolation_level="AUTOCOMMIT",
        )  # fmt: skip
        self._read: dict[tuple[tuple[str, str], ...], tuple[Any, list[RunRow], dict[str, Extremes]]] = {}
        self._of_run: dict[str, tuple[Any, dict[str, float], dict[str, int], Extremes, dict[str, str]]] = {}

    def experiments(self) -> dict[str, str]:
        """Return the names of all experiments by id, the newest first, without an empty default one."""
        with self._connected() as connection:
            return {str(key): name for key, name in connection.execute(_EXPERIMENTS).fetchall()}

    def read(self, experiments: Mapping[str, str]) -> tuple[list[RunRow], dict[str, Extremes]]:
        """Return the runs of experiments (names by id), the newest first, and the extremes of their metrics.

        Raises
        ------
        InputError
            When the database does not answer.
        """
        if not experiments:
            return [], {}
        with self._connected() as connection:
            return self._current(connection, experiments)

    def history(self, run_ids: Sequence[str], key: str) -> list[tuple[str, int, float]]:
        """Return run, step and value of everything logged of a metric, in the order of steps and times."""
        with self._connected() as connection:
            found = _rows(connection, _HISTORY, {"runs": list(run_ids), "key": key}, "runs")
            return [(run, step, float("nan") if is_nan else value) for run, step, value, is_nan in found]

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise InputError(f"cannot read {self._where}: {first_line(error)}") from error

    def _current(self, connection: Any, experiments: Mapping[str, str]) -> tuple[list[RunRow], dict[str, Extremes]]:
        mark = self._changes(connection)
        key = tuple(sorted(experiments.items()))
        before = self._read.get(key)
        if before is not None and mark is not None and before[0] == mark:
            return before[1], before[2]
        chosen = {"experiments": list(experiments)}
        runs = _rows(connection, _RUNS, chosen, "experiments")
        tags: dict[str, dict[str, str]] = {}
        for run, name, value in _rows(connection, _TAGS, chosen, "experiments"):
            tags.setdefault(run, {})[name] = value
        marks: dict[str, Any] = {run[0]: () for run in runs}
        for query in (_MARKS, _COUNTS, _PARAMETERS):
            for run, *numbers in _rows(connection, query, chosen, "experiments"):
                marks[run] = (*marks.get(run, ()), *numbers)
        self._refresh(connection, marks)
        rows = [_row(run, experiments, tags.get(run[0], {}), self._of_run[run[0]]) for run in runs]
        extremes = {row.id: self._of_run[row.id][3] for row in rows}
        # Of other sets of experiments nothing is kept: they would be read again anyway after a change.
        self._read = {old: value for old, value in self._read.items() if value[0] == mark} | {
            key: (mark, rows, extremes)
        }
        return rows, extremes

    def _changes(self, connection: Any) -> Any:
        """Return what differs after anybody else has written; ``None`` where the database does not tell."""
        statement = _CHANGES.get(connection.dialect.name)
        return None if statement is None else connection.execute(text(statement)).scalar()

    def _refresh(self, connection: Any, marks: Mapping[str, Any]) -> None:
        changed = [run for run, mark in marks.items() if run not in self._of_run or self._of_run[run][0] != mark]
        for first in range(0, len(changed), _PART):
            part = {"runs": changed[first : first + _PART]}
            metrics: dict[str, dict[str, float]] = {}
            steps: dict[str, dict[str, int]] = {}
            for run, key, value, is_nan, step in _rows(connection, text(_LATEST), part, "runs"):
                metrics.setdefault(run, {})[key] = float("nan") if is_nan else value
                steps.setdefault(run, {})[key] = step
            params: dict[str, dict[str, str]] = {}
            for run, key, value in _rows(connection, text(_VALUES), part, "runs"):
                params.setdefault(run, {})[key] = value
            extremes: dict[str, Extremes] = {}
            for run, key, low, high in _rows(connection, text(_EXTREMES), {**part, "no": False}, "runs"):
                if low is not None:
                    extremes.setdefault(run, {})[key] = (low, high)
            for run in part["runs"]:
                self._of_run[run] = (
                    marks[run], metrics.get(run, {}), steps.get(run, {}), extremes.get(run, {}), params.get(run, {})
                )  # fmt: skip


def _rows(connection: Any, query: Any, values: Mapping[str, Any], listed: str) -> Iterable[Any]:
    found = connection.execute(query.bindparams(bindparam(listed, expanding=True)), values)
    rows: list[Any] = found.cursor.fetchall()
    found.close()
    return rows


def _row(run: Any, experiments: Mapping[str, str], tags: dict[str, str], own: Any) -> RunRow:
    identity, name, experiment, status, start, end = run
    return RunRow(
        id=identity, name=tags.get("mlflow.runName") or name or identity[:8], experiment=experiments[str(experiment)],
        status=status, start=moment(start),
        seconds=duration(status, start or 0, end), params=own[4], metrics=own[1], tags=tags,
        parent=tags.get("mlflow.parentRunId"), steps=own[2],
    )  # fmt: skip
