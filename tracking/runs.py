"""Recording a run: configuration, metrics, figures, files and how it ended.

Whatever is recorded goes into a spool on the local disk first; a thread sends it, see docs/tracking.md.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from stm_models.errors import InputError
from stm_models.files import write_json
from tracking import heartbeat, liveness
from tracking.backend import resolve_tags
from tracking.closing import bury, kill, kill_left, refuse_living
from tracking.ending import terminable, verdict
from tracking.environment import describe
from tracking.rows import RUN_TAG, RunRow, configuration, download, find, get
from tracking.sinks import Direct, Sink, Spooled
from tracking.spool import PREFIX
from tracking.store import Store, first_line
from tracking.values import key_of, params_of, tags_of

__all__ = [
    "PREFIX", "RUN_TAG", "Run", "RunRow", "bury", "configuration", "download", "existing", "find", "get", "kill",
    "kill_left", "refuse_living", "start",
]  # fmt: skip


class Run:
    """A run that takes records; made by `start` or `existing`. Its methods may be called from several threads.

    Attributes
    ----------
    id : str
        The run's in the store or, where that did not answer, ``spool_…``, which `get` understands once it was sent.
    """

    def __init__(self, store: Store, run_id: str, sink: Sink) -> None:
        self.store, self.id = store, run_id
        self._sink = sink

    @property
    def link(self) -> str:
        """The page of the run on the server, or the command that leads to it."""
        return self._sink.link

    def config(self, values: Mapping[str, Any]) -> None:
        """Log a configuration: each value as parameter ``section.key``, the whole as ``config.yaml``."""
        self.params(values)
        plain = json.loads(json.dumps(values, default=str))
        with self._sink.place("config.yaml") as path:
            path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")

    def params(self, values: Mapping[str, Any]) -> None:
        """Log each value as parameter ``section.key``.

        A parameter that the run has already is left as it is; a long value is cut.
        """
        self._sink.append({"kind": "params", "values": params_of(values)})

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        numbers = {key_of(key): float(value) for key, value in values.items()}
        self._sink.append({"kind": "metrics", "time": _now(), "step": step or 0, "values": numbers})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags, over those of the same name."""
        self._sink.append({"kind": "tags", "values": tags_of(values)})

    def input(self, dataset: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log a data set that is used: ``name``, ``digest``, ``source_type``, ``source`` and ``profile``."""
        self._sink.append({"kind": "input", "dataset": dict(dataset), "tags": dict(tags)})

    def figure(self, figure: Any, name: str) -> None:
        """Log a matplotlib figure as ``name``, e.g. ``figures/parity.png``."""
        with self._sink.place(name) as path:
            figure.savefig(path)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or what is in a folder, under ``folder`` of the run's files.

        Raises
        ------
        InputError
            When it does not exist.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"cannot log {path}: no such file or folder")
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
        base = path.parent if path.is_file() else path
        for file in files:
            with self._sink.place(str(PurePosixPath(folder or "") / file.relative_to(base).as_posix())) as target:
                shutil.copyfile(file, target)

    def json(self, value: Any, name: str) -> None:
        """Log ``value`` as the JSON file ``name``, e.g. ``panel/index.json``."""
        with self._sink.place(name) as path:
            write_json(path, value)

    def file(self, name: str) -> Path:
        """Return a local copy of a file or folder of the run.

        Raises
        ------
        InputError
            When there is none.
        """
        return self._sink.file(name) or download(self.store, self.id, name)

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
    """Open a run of the past to add to it, without a spool; its status and times stay as they are.

    Raises
    ------
    InputError
        When there is no such run.
    """
    found = get(store, run_id).id
    return Run(store, found, Direct(store, found))


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
    """Record what happens in the block as one run; runs left open by processes that are gone are closed before.

    The run that ``mlflow run`` opened (MLFLOW_RUN_ID) is used by the first block without a parent. The run
    ends FINISHED, FAILED (exception) or KILLED (interrupt, SIGTERM, pruned trial); the tag ``outcome`` says
    complete, failed, killed or pruned.

    Parameters
    ----------
    store : Store
        May be away: what is recorded waits in the spool then.
    parent : str, optional
        Id of the run that this one is nested in.
    resume : str, optional
        Id of an interrupted run to continue instead of opening a new one.

    Raises
    ------
    InputError
        When ``resume`` or MLFLOW_RUN_ID names no run of this store, or the spool cannot be written.
    """
    launched = os.environ.pop("MLFLOW_RUN_ID", None) if parent is None else None
    given = resume or launched
    if given is not None and store.away is None:
        _check(store, given, "the run to resume" if resume else "MLFLOW_RUN_ID")
    if parent is None and resume is None and store.away is None:
        bury(store, experiment)
    own = tags_of(tags or {}) | {"process": liveness.identity(), **heartbeat.now()}
    sink = Spooled(
        store,
        {
            "time": _now(), "store": store.location, "experiment": experiment, "name": name, "parent": parent,
            "attach": given, "owner": own["process"], "tags": own if given else resolve_tags(own),
        },
    )  # fmt: skip
    run = Run(store, sink.id, sink)
    with terminable():
        try:
            yield run
        except BaseException as error:
            try:
                _end(sink, error)
            except Exception as second:
                print(f"run {run.id} could not be closed: {first_line(second)}", file=sys.stderr)
            raise
        _end(sink, None)


def _check(store: Store, run_id: str, what: str) -> None:
    try:
        get(store, run_id)
    except InputError as error:
        raise InputError(
            f"{what} is {run_id!r}, which is no run of {store.location}: "
            "leave it out, or set MLFLOW_TRACKING_URI to its store"
        ) from error


def _end(sink: Spooled, error: BaseException | None) -> None:
    status, outcome = verdict(error)
    said = {"error": f"{type(error).__name__}: {first_line(error)}"} if error and outcome == "failed" else {}
    sink.end(status, tags_of({"outcome": outcome, **said}))


def _now() -> int:
    return int(time.time() * 1000)
