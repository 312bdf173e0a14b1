"""What all views read from: the store, and what was read of it a moment ago."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from stm_models.data import panel, predictions
from stm_models.data.panel import Panel
from stm_models.data.predictions import Predictions
from stm_models.errors import InputError
from stm_models.unfinished import scratch
from tracking import registry
from tracking.backend import MlflowException
from tracking.registry import ModelVersionInfo
from tracking.rows import RunRow, download, entries
from tracking.snapshot import Reader
from tracking.store import Store
from tracking.ui.values import Values

__all__ = ["Site"]

_KEPT = 48  # files read
_LARGEST = 256 * 2**20  # bytes of one
_FRESH = 2.0  # seconds that models are taken for the present ones


class Site:
    """A store as the pages see it; may be asked from several threads.

    Parameters
    ----------
    store : Store
    studies : str, optional
        Address of the Optuna storage; by default the one beside the store.
    """

    def __init__(self, store: Store, studies: str | None = None) -> None:
        self.store, self.studies = store, studies
        self.reader = Reader(store)
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._versions: tuple[float, list[ModelVersionInfo]] = (-1e9, [])

    def values(
        self, experiment: str | None = None, metrics: Sequence[str] = (), runs: Collection[str] | None = None
    ) -> Values:
        """Return the runs of an experiment, or of all, for looking up.

        Parameters
        ----------
        metrics, runs
            Whose best values are needed: on a server those of others are their last ones, see `Reader.read`.
        """
        return Values(self.reader.read(experiment, metrics, runs))

    def runs(self, ids: list[str]) -> dict[str, RunRow]:
        """Return runs by id.

        Raises
        ------
        InputError
            When one does not exist.
        """
        known = self.reader.read().by_id
        for one in ids:
            if one not in known:
                raise InputError(f"there is no run {one[:80]!r}: choose runs in the table")
        return {one: known[one] for one in ids}

    def versions(self) -> list[ModelVersionInfo]:
        """Return all versions of all registered models, by name, the newest first."""
        with self._lock:
            read, found = self._versions
            if time.monotonic() - read > _FRESH:
                found = [one for name in registry.names(self.store) for one in registry.versions(self.store, name)]
                self._versions = (time.monotonic(), found)
            return found

    def badges(self) -> dict[str, list[str]]:
        """Return by run what its models are called, e.g. ``champion · stm-hubbard 3``; nothing without a registry."""
        badges: dict[str, list[str]] = {}
        try:
            versions = self.versions()
        except (MlflowException, InputError):
            return {}  # a table of runs needs none
        for info in versions:
            for alias in info.aliases:
                badges.setdefault(info.run_id, []).append(f"{alias} · {info.name} {info.version}")
        return badges

    def panel(self, run_id: str) -> Panel | None:
        """Return a run's panel; ``None`` where it has none that can be read."""
        found: Panel | None = self._file(run_id, "panel.npz", panel.load)
        return found

    def predictions(self, run_id: str) -> Predictions | None:
        """Return a run's predictions; ``None`` where it has none that can be read."""
        found: Predictions | None = self._file(run_id, predictions.FILE, predictions.load)
        return found

    def _file(self, run_id: str, name: str, load: Callable[[Path], Any]) -> Any:
        with self._lock:
            if (run_id, name) in self._files:
                self._files.move_to_end((run_id, name))
                return self._files[run_id, name]
        found, size = None, self._size(run_id, name)
        if size is not None and size <= _LARGEST:
            with scratch() as folder:
                try:
                    found = load(download(self.store, run_id, name, folder))
                except InputError:
                    found = None
        if found is not None:  # a run may get its files later
            with self._lock:
                self._files[run_id, name] = found
                while len(self._files) > _KEPT:
                    self._files.popitem(last=False)
        return found

    def _size(self, run_id: str, name: str) -> int | None:
        try:
            found = entries(self.store, run_id)
        except MlflowException:
            return None
        return next((int(one.file_size or 0) for one in found if one.path == name and not one.is_dir), None)
