"""Rows of a whole store at once, with the smallest and largest value of every metric, kept until the store changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tracking import rows
from tracking.backend import MlflowException
from tracking.rows import RunRow
from tracking.sql_rows import Database
from tracking.store import Store

__all__ = ["Extremes", "Reader", "Snapshot"]

Extremes = Mapping[str, tuple[float, float]]
_FRESH = 3.0  # seconds that rows from a server are taken for the present ones
_AT_ONCE = 8  # requests
_EVALUATED = "evaluated.run"  # tag of a run that logs every metric once


@dataclass(frozen=True)
class Snapshot:
    """Runs as they were at one moment.

    Attributes
    ----------
    rows : sequence of RunRow
        The newest first.
    extremes : mapping of str to mapping of str to (float, float)
        By run and metric: smallest and largest value that was ever logged, NaN left out. A metric that is
        not among them has one value alone, or was not asked for.
    """

    rows: Sequence[RunRow]
    extremes: Mapping[str, Extremes] = field(default_factory=dict)

    @property
    def by_id(self) -> dict[str, RunRow]:
        """The rows by run."""
        return {row.id: row for row in self.rows}


class Reader:
    """Reads snapshots of a store; may be called from several threads.

    A database is read by SQL and again only when it has changed, and then only the runs that have. Of a server the
    rows are fetched by `tracking.rows.find`, and the histories of the metrics that are asked for.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._database = None if store.remote else Database(store.uri)
        self._fetched: dict[str | None, tuple[float, Snapshot]] = {}
        self._known: dict[tuple[str, str], tuple[str, tuple[float, float]]] = {}

    def experiments(self) -> list[str]:
        """Return the names of all experiments."""
        with self._lock:
            return sorted((self._database or self.store).experiments().values())

    def read(
        self, experiment: str | None = None, metrics: Sequence[str] = (), runs: Collection[str] | None = None
    ) -> Snapshot:
        """Return the runs of an experiment, or of all.

        Parameters
        ----------
        metrics : sequence of str
            Whose extremes are needed; a database gives those of all.
        runs : collection of str, optional
            Ids of the runs whose extremes are needed; all when not given.
        """
        with self._lock:
            if self._database is not None:
                names = self._database.experiments()
                chosen = {key: name for key, name in names.items() if experiment in (None, name)}
                return Snapshot(*self._database.read(chosen))
            found = self._remote(experiment)
            return Snapshot(found.rows, self._asked(found.rows, metrics, runs))

    def history(self, run_ids: Sequence[str], metric: str) -> dict[str, list[tuple[int, float]]]:
        """Return step and value of a metric by run, in the order of steps; of one step the last value."""
        if self._database is not None:
            with self._lock:
                found = self._database.history(run_ids, metric)
        else:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                lists = pool.map(lambda run: self._logged(run, metric), run_ids)
                found = [(run, one.step, one.value) for run, ones in zip(run_ids, lists, strict=True) for one in ones]
        curves: dict[str, dict[int, float]] = {}
        for run, step, value in found:
            curves.setdefault(run, {})[step] = value
        return {run: sorted(curve.items()) for run, curve in curves.items()}

    def _remote(self, experiment: str | None) -> Snapshot:
        before = self._fetched.get(experiment)
        if before is not None and time.monotonic() - before[0] < _FRESH:
            return before[1]
        found = Snapshot(rows.find(self.store, experiment))
        self._fetched[experiment] = (time.monotonic(), found)
        return found

    def _asked(
        self, found: Sequence[RunRow], metrics: Sequence[str], runs: Collection[str] | None
    ) -> dict[str, dict[str, tuple[float, float]]]:
        wanted = [
            # As text: NaN is not equal to itself.
            (row.id, name, f"{row.metrics[name]!r} at {row.steps.get(name)}, {row.status}")
            for row in found
            if runs is None or row.id in runs
            for name in dict.fromkeys(metrics)
            if name in row.metrics and (row.steps.get(name, 1) > 0 or _without_steps(row))
        ]
        missing = [one for one in wanted if self._known.get(one[:2], (None,))[0] != one[2]]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for (run_id, name, last), values in zip(missing, pool.map(self._history, missing), strict=True):
                if values:
                    self._known[run_id, name] = (last, (min(values), max(values)))
        result: dict[str, dict[str, tuple[float, float]]] = {}
        for run_id, name, _ in wanted:
            if (run_id, name) in self._known:
                result.setdefault(run_id, {})[name] = self._known[run_id, name][1]
        return result

    def _history(self, asked: tuple[str, str, str]) -> list[float]:
        return [one.value for one in self._logged(asked[0], asked[1]) if one.value == one.value]

    def _logged(self, run_id: str, metric: str) -> list[Any]:
        try:
            found: list[Any] = self.store.client.get_metric_history(run_id, metric)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise  # the last value would pass for the best
            return []
        return sorted(found, key=lambda one: (one.step, one.timestamp))


def _without_steps(row: RunRow) -> bool:
    """Tell whether whoever logged a run's metrics counted no steps, so that one at step 0 may have a history.

    Where some have steps, one at step 0 has a single value, as all of an evaluation's have: they are many to ask for.
    """
    own = (step for name, step in row.steps.items() if not name.startswith("system/"))
    return _EVALUATED not in row.tags and not any(own)
