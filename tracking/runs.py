"""Recording a run: configuration, metrics, figures, files and how it ended."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from stm_models.errors import InputError
from stm_models.files import write_json
from tracking import heartbeat, liveness
from tracking.backend import Metric, MlflowException, Param, RunTag, resolve_tags
from tracking.environment import describe
from tracking.rows import RunRow, configuration, download, find, get
from tracking.store import Store, first_line

__all__ = ["Run", "RunRow", "bury", "configuration", "download", "existing", "find", "get", "kill", "start"]

_PARAM_LIMIT = 6000  # characters of a parameter's value
_TAG_LIMIT = 5000
_BATCH = 100  # parameters or tags per call
_BUFFER = 500  # metrics per call
_INTERVAL = 2.0  # seconds between calls, at least
_LONGEST = 10.0  # and at most; so much is lost when the process is killed
_SHARE = 0.0025  # of the time that calls may take
_PROCESS = "process"  # tag: who works on a run


class Run:
    """A run in progress; made by `start`. Its methods may be called from several threads."""

    def __init__(self, store: Store, run_id: str, known: Mapping[str, str]) -> None:
        self.store, self.id = store, run_id
        self._known = set(known)
        self._metrics: list[Metric] = []
        self._sent, self._every = time.monotonic(), _INTERVAL
        self._lock = threading.Lock()

    def config(self, values: Mapping[str, Any]) -> None:
        """Log a configuration: each value as parameter ``section.key``, the whole as ``config.yaml``."""
        self.params(values)
        plain = json.loads(json.dumps(values, default=str))
        self.store.client.log_text(self.id, yaml.safe_dump(plain, sort_keys=False), "config.yaml")

    def params(self, values: Mapping[str, Any]) -> None:
        """Log each value as parameter ``section.key``.

        A parameter that the run has already is left as it is; a long value is cut.
        """
        flat = {_key(key): _cut(_text(value), _PARAM_LIMIT) for key, value in _flatten(values)}
        params = [Param(key, text) for key, text in flat.items() if key not in self._known]
        for first in range(0, len(params), _BATCH):
            self.store.client.log_batch(self.id, params=params[first : first + _BATCH])
        self._known |= set(flat)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers; they are sent together, every 2 s or, to a slow store, up to 10, and at the end."""
        now = int(time.time() * 1000)
        new = [Metric(_key(key), float(value), now, step or 0) for key, value in values.items()]
        with self._lock:
            self._metrics += new
            due = len(self._metrics) >= _BUFFER or time.monotonic() - self._sent > self._every
        if due:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that wait."""
        start = time.monotonic()
        with self._lock:
            waiting, self._metrics = self._metrics, []
            self._sent = start
        for first in range(0, len(waiting), _BUFFER):
            self.store.client.log_batch(self.id, metrics=waiting[first : first + _BUFFER])
        self._every = min(max(_INTERVAL, (time.monotonic() - start) / _SHARE), _LONGEST)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags, over those of the same name."""
        tags = [RunTag(_key(key), _cut(_text(value), _TAG_LIMIT)) for key, value in values.items()]
        for first in range(0, len(tags), _BATCH):
            self.store.client.log_batch(self.id, tags=tags[first : first + _BATCH])

    def figure(self, figure: Any, name: str) -> None:
        """Log a matplotlib figure as ``name``, e.g. ``figures/parity.png``."""
        self.store.client.log_figure(self.id, figure, name)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file or a folder, under ``folder`` of the run's files.

        Raises
        ------
        InputError
            When it does not exist.
        """
        path = Path(path)
        if path.is_dir():
            self.store.client.log_artifacts(self.id, str(path), folder)
        elif path.is_file():
            self.store.client.log_artifact(self.id, str(path), folder)
        else:
            raise InputError(f"cannot log {path}: no such file or folder")

    def json(self, value: Any, name: str) -> None:
        """Log ``value`` as the JSON file ``name``, e.g. ``panel/index.json``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            write_json(path, value)
            self.artifact(path, str(Path(name).parent) if Path(name).parent.name else None)

    def environment(self, seeds: Mapping[str, int] | None = None) -> None:
        """Log code, machine, packages and seeds as ``environment.json`` and a few tags."""
        found = describe(seeds)
        self.json(found, "environment.json")
        tags: dict[str, Any] = {"cpu": found["cpu"]["model"], "cores": found["cpu"]["cores"]}
        if found["gpu"]:
            tags["gpu"] = found["gpu"][0]["name"]
        if found["git"]:
            tags |= {"git.commit": found["git"]["commit"], "git.dirty": found["git"]["dirty"]}
        self.tags(tags | {f"seed.{name}": seed for name, seed in found["seeds"].items()})


def existing(store: Store, run_id: str) -> Run:
    """Open a run of the past to add to it; its status and times stay as they are.

    Raises
    ------
    InputError
        When there is no such run.
    """
    return Run(store, run_id, get(store, run_id).params)


def bury(store: Store, experiment: str) -> None:
    """Close the runs that say they are running although their process, of this machine, is gone.

    And those of other machines that have given no sign of life for long.
    """
    for row in find(store, experiment, status="RUNNING", limit=1_000_000):
        # It may have closed the run since it was found.
        who = row.tags.get(_PROCESS, "")
        dead = liveness.gone(who) or (not liveness.here(who) and heartbeat.silent(row.tags))
        if dead and get(store, row.id).status == "RUNNING":
            kill(store, row.id)


def kill(store: Store, run_id: str) -> None:
    """Close a run whose process did not."""
    store.client.set_tag(run_id, "outcome", "killed")
    store.client.set_terminated(run_id, status="KILLED")


@contextmanager
def start(
    store: Store,
    experiment: str,
    name: str,
    *,
    parent: str | None = None,
    tags: Mapping[str, Any] | None = None,
    resume: str | None = None,
) -> Iterator[Run]:
    """Record what happens in the block as one run.

    The run that ``mlflow run`` opened (MLFLOW_RUN_ID) is used by the first block without a parent. The run
    ends FINISHED, FAILED (exception) or KILLED (interrupt, SIGTERM, pruned trial); the tag ``outcome`` says
    complete, failed, killed or pruned.

    Parameters
    ----------
    parent : str, optional
        Id of the run that this one is nested in.
    resume : str, optional
        Id of an interrupted run to continue instead of opening a new one.

    Raises
    ------
    InputError
        When ``resume`` or MLFLOW_RUN_ID names no run of this store.
    """
    launched = os.environ.pop("MLFLOW_RUN_ID", None) if parent is None else None
    given = resume or launched
    run = _attach(store, given, tags) if given else _create(store, experiment, name, parent, tags)
    with _terminable():
        try:
            with heartbeat.beating(run.tags):
                yield run
        except BaseException as error:
            try:
                _end(run, *_verdict(error), error)
            except Exception as second:
                print(f"run {run.id} could not be closed: {first_line(second)}", file=sys.stderr)
            raise
        _end(run, "FINISHED", "complete")


def _create(store: Store, experiment: str, name: str, parent: str | None, tags: Mapping[str, Any] | None) -> Run:
    own = {_key(key): _cut(_text(value), _TAG_LIMIT) for key, value in (tags or {}).items()}
    own |= {_PROCESS: liveness.identity(), **heartbeat.now()}
    if parent is not None:
        own["mlflow.parentRunId"] = parent
    made = store.client.create_run(store.experiment(experiment), tags=resolve_tags(own), run_name=name)
    return Run(store, made.info.run_id, {})


def _attach(store: Store, run_id: str, tags: Mapping[str, Any] | None) -> Run:
    try:
        found = store.client.get_run(run_id)
    except MlflowException as error:
        raise InputError(
            f"MLFLOW_RUN_ID is {run_id!r}, which is no run of {store.location}: "
            "unset it, or set MLFLOW_TRACKING_URI to its store"
        ) from error
    run = Run(store, run_id, found.data.params)
    run.tags({**(tags or {}), _PROCESS: liveness.identity(), **heartbeat.now()})
    store.client.update_run(run_id, status="RUNNING")
    return run


def _end(run: Run, status: str, outcome: str, error: BaseException | None = None) -> None:
    try:
        run.flush()
        said = {"error": f"{type(error).__name__}: {first_line(error)}"} if error and outcome == "failed" else {}
        run.tags({"outcome": outcome, **said})
    finally:
        run.store.client.set_terminated(run.id, status=status)


def _verdict(error: BaseException) -> tuple[str, str]:
    optuna = sys.modules.get("optuna")  # not imported for its sake: it takes a second
    if optuna is not None and isinstance(error, optuna.TrialPruned):
        return "KILLED", "pruned"
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "killed"
    if isinstance(error, SystemExit) and not error.code:
        return "FINISHED", "complete"
    return "FAILED", "failed"


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, where nobody else listens to it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _key(name: str) -> str:
    return re.sub(r"[^\w\-./: ]", "_", name)[:250]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
