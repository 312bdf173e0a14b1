"""Bringing records to a run in a store, so that each is there once however often it is sent.

The store itself ignores a metric that it has with the same key, step, time and value, takes a parameter's same value
again, and replaces tags and files; so whatever was not acknowledged is sent again. A run is looked for by its tag
``stm.run`` before it is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from tracking import spool
from tracking.backend import Dataset, DatasetInput, InputTag, Metric, MlflowException, Param, RestException, RunTag
from tracking.rows import RUN_TAG, located
from tracking.spool import Record
from tracking.store import Store, first_line

__all__ = ["Deferred", "Target", "begin", "deleted", "finish", "known", "permanent"]

_CALL = 1000  # metrics of one call, MLflow's limit; of parameters and tags it is 100
_ENDED = {"outcome", "error"}  # tags of a run that ended; one that is taken up has not
_TOO_MUCH = (400, 413, 414)  # what HTTP says to a file that it will never take
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")


class Deferred(Exception):
    """A record cannot be sent before something else was."""


def permanent(error: BaseException, store: Store) -> bool:
    """Tell whether a store would refuse the same again, whenever it is asked."""
    if getattr(getattr(error, "response", None), "status_code", None) in _TOO_MUCH:
        return True
    if not isinstance(error, MlflowException) or error.error_code not in _REFUSALS:
        return False
    # What a proxy answers while its server is away has no MLflow error in it.
    return isinstance(error, RestException) or not store.remote


def deleted(store: Store, run_id: str) -> bool:
    """Tell whether a run that the store had was deleted there."""
    try:
        return bool(store.client.get_run(run_id).info.lifecycle_stage == "deleted")
    except MlflowException as error:
        if not permanent(error, store):
            raise
        return True  # for good


def known(store: Store, run_id: str, base: Path) -> str:
    """Return the id in the store of a run that may be called by its spool, which lies in ``base`` until it is sent.

    Raises
    ------
    Deferred
        When it was not delivered yet.
    """
    if not run_id.startswith(spool.PREFIX):
        return run_id
    identity = run_id.removeprefix(spool.PREFIX)
    made = spool.state(base / identity).get("run")
    found = [made] if made else located(store, identity)
    if not found:
        raise Deferred(f"run {run_id}, which it belongs to, has not been sent")
    return found[0]


def begin(store: Store, start: Record, base: Path, *, again: bool) -> tuple[str, str]:
    """Make the run of a start record, or take up the one that it names.

    Parameters
    ----------
    base : Path
        Where the spools of other runs are.
    again : bool
        Whether it may have been made before.

    Returns
    -------
    run, experiment : str
        Ids in the store.

    Raises
    ------
    Deferred
        When the run that it is nested in was not delivered yet.
    """
    if start["attach"] is not None:
        run_id = known(store, start["attach"], base)
        Target(store, run_id).apply([{"kind": "tags", "values": start["tags"]}], Path())
        store.client.update_run(run_id, status="RUNNING")
        run = store.client.get_run(run_id)
        for key in _ENDED & run.data.tags.keys():
            store.client.delete_tag(run_id, key)
        return run_id, str(run.info.experiment_id)
    tags = dict(start["tags"])
    if start["parent"] is not None:
        tags["mlflow.parentRunId"] = known(store, start["parent"], base)
    experiment = store.experiment(start["experiment"])
    if again and (made := located(store, start["id"])):
        return made[0], experiment
    run = store.client.create_run(
        experiment, start_time=start["time"], tags={**tags, RUN_TAG: start["id"]}, run_name=start["name"]
    )
    return str(run.info.run_id), experiment


def finish(store: Store, run_id: str, start: Record) -> None:
    """Delete what a lost reply made twice: the runs beside ``run_id`` that say they are it."""
    if store.remote and start["attach"] is None:
        for twin in located(store, start["id"]):
            if twin != run_id:
                store.client.delete_run(twin)


class Target:
    """A run in a store.

    Parameters
    ----------
    fresh : bool
        Whether it has no parameters yet; those that it has are left as they are.
    """

    def __init__(self, store: Store, run_id: str, *, fresh: bool = False) -> None:
        self.store, self.id = store, run_id
        self._params: set[str] | None = set() if fresh else None

    def apply(self, records: Sequence[Record], folder: Path, after: int = 0) -> list[str]:
        """Bring records in; ``folder`` is the spool with their files, whose log goes on at ``after``.

        Returns
        -------
        list of str
            What the store refuses for good, and why.

        Raises
        ------
        Deferred
            When a file is not there yet.
        MlflowException, OSError
            When the store cannot take them now, or has no such run.
        """
        refused: list[str] = []
        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for record in records:
            match record["kind"]:
                case "metrics":
                    values = record["values"].items()
                    metrics += [Metric(key, value, record["time"], record["step"]) for key, value in values]
                case "params":
                    params |= {key: value for key, value in record["values"].items() if key not in params}
                case "tags":
                    tags |= record["values"]
                case "artifact":
                    refused += self._try(partial(self._file, record, folder, after), record["name"])
                case "input":
                    refused += self._try(partial(self._input, record), record["dataset"]["name"])
                case "end" if self._ours(record):
                    tags |= record["tags"]
        if params:
            new = [Param(key, value) for key, value in params.items() if key not in self._given()]
            refused += self._each("params", new, 100)
            self._given().update(params)
        refused += self._each("metrics", metrics, _CALL)
        refused += self._each("tags", [RunTag(key, value) for key, value in tags.items()], 100)
        for record in records:
            if record["kind"] == "end" and self._ours(record):
                self.store.client.set_terminated(self.id, status=record["status"], end_time=record["time"])
        return refused

    def _given(self) -> set[str]:
        if self._params is None:
            self._params = set(self.store.client.get_run(self.id).data.params)
        return self._params

    def _each(self, kind: str, values: list[Any], size: int) -> list[str]:
        """Send ``values`` in calls of ``size``; where one is refused, all of its call one by one."""
        refused = []
        for first in range(0, len(values), size):
            part = values[first : first + size]
            try:
                self.store.client.log_batch(self.id, **{kind: part})
            except MlflowException as error:
                if not permanent(error, self.store) or deleted(self.store, self.id):
                    raise
                if len(part) > 1:
                    refused += self._each(kind, part, 1)
                else:
                    refused.append(f"{kind[:-1]} {part[0].key}: {first_line(error)}")
        return refused

    def _try(self, call: Callable[[], None], what: str) -> list[str]:
        try:
            call()
        except (MlflowException, OSError) as error:
            lost = isinstance(error, FileNotFoundError)
            if not lost and (not permanent(error, self.store) or deleted(self.store, self.id)):
                raise
            return [f"{what}: {first_line(error)}"]
        return []

    def _file(self, record: Record, folder: Path, after: int) -> None:
        path = spool.artifact(folder, record["name"])
        if not spool.intact(folder, record):
            ended = False
            for later in spool.records(folder, after):
                if later["kind"] == "artifact" and later["name"] == record["name"]:
                    return  # written again since
                ended = ended or later["kind"] == "end"
            if not ended:
                raise Deferred(f"its file {record['name']} is not there yet")
            raise FileNotFoundError("it was not written to its end, or changed since")
        parent = str(PurePosixPath(record["name"]).parent)
        self.store.client.log_artifact(self.id, str(path), None if parent == "." else parent)

    def _input(self, record: Record) -> None:
        tags = [InputTag(key, value) for key, value in record["tags"].items()]
        self.store.client.log_inputs(self.id, datasets=[DatasetInput(Dataset(**record["dataset"]), tags=tags)])

    def _ours(self, end: Record) -> bool:
        """Tell whether the run was not taken up by another process since the one that ``end`` closes."""
        owner = end.get("owner")
        if owner is None:
            return True
        return bool(self.store.client.get_run(self.id).data.tags.get("process", owner) == owner)
