"""Reading runs back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from stm_models.errors import InputError, unknown
from tracking.backend import MlflowException, get_artifact_repository
from tracking.fetching import behind, fetched
from tracking.spool import PREFIX
from tracking.store import Store, first_line

__all__ = ["RUN_TAG", "RunRow", "configuration", "download", "duration", "entries", "find", "get", "located", "moment"]

RUN_TAG = "stm.run"
"""Tag with the identity of a run, which it has before the store gives it an id."""
_IDENTITY = re.compile("[0-9a-f]{32}")
_PAGE = 1000  # runs a request


@dataclass(frozen=True)
class RunRow:
    """One run as it is stored.

    Attributes
    ----------
    status : str
        RUNNING, FINISHED, FAILED or KILLED; the tag ``outcome`` says more.
    start : datetime
        In UTC.
    seconds : float or None
        Duration; ``None`` while it runs.
    metrics : mapping of str to float
        The last value of each.
    parent : str or None
        Id of the run that this one is nested in.
    steps : mapping of str to int
        At which step each metric has its last value.
    """

    id: str
    name: str
    experiment: str
    status: str
    start: datetime
    seconds: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    parent: str | None
    steps: Mapping[str, int] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """How it ended: complete, pruned, failed, killed or running."""
        return self.tags.get("outcome", self.status.lower())


def located(store: Store, identity: str) -> list[str]:
    """Return the ids of the runs whose tag says that they are the run ``identity``, with or without ``spool_``."""
    known = identity.removeprefix(PREFIX)
    if not _IDENTITY.fullmatch(known):
        return []
    experiments = [one.experiment_id for one in store.client.search_experiments()]
    found = store.client.search_runs(
        experiments, filter_string=f"tags.`{RUN_TAG}` = '{known}'",
        order_by=["attributes.start_time ASC"],
    )  # fmt: skip
    return sorted(run.info.run_id for run in found)


def find(
    store: Store,
    experiment: str | None = None,
    *,
    parent: str | None = None,
    status: str | None = None,
    limit: int | None = None,
) -> list[RunRow]:
    """Return runs, the newest first.

    Parameters
    ----------
    experiment : str, optional
        Its name; all experiments when not given. One that does not exist has no runs.
    parent : str, optional
        Only the runs nested in this one.
    status : str, optional
        Only those that are RUNNING, FINISHED, FAILED or KILLED.
    limit : int, optional
        No more than so many; all when not given.

    Raises
    ------
    InputError
        When the store refuses the search.
    """
    names = store.experiments()
    if experiment is not None:
        names = {key: name for key, name in names.items() if name == experiment}
    if parent is not None and parent.startswith(PREFIX):
        if not (made := located(store, parent)):
            return []
        parent = made[0]
    wanted = [] if parent is None else [f"tags.`mlflow.parentRunId` = '{parent}'"]
    wanted += [] if status is None else [f"attributes.status = '{status}'"]
    rows: list[RunRow] = []
    token = None
    while names and (limit is None or len(rows) < limit):
        try:
            most = _PAGE if limit is None else min(limit - len(rows), _PAGE)
            page = store.client.search_runs(
                list(names), filter_string=" AND ".join(wanted), max_results=most,
                order_by=["attributes.start_time DESC"], page_token=token,
            )  # fmt: skip
        except MlflowException as error:
            raise InputError(f"cannot search the runs of {store.location}: {first_line(error)}") from error
        rows += [_row(run, names) for run in page]
        token = page.token
        if not token:
            break
    return rows


def get(store: Store, run_id: str) -> RunRow:
    """Return one run; ``spool_…`` is one that was recorded while the store was away.

    Raises
    ------
    InputError
        When it does not exist, or was not sent yet; the newest ones are named.
    """
    if run_id.startswith(PREFIX):
        made = located(store, run_id)
        if not made:
            raise InputError(f"run {run_id} is not in {store.location} yet: send it with stm sync FOLDER")
        run_id = made[0]
    try:
        run = store.client.get_run(run_id)
    except MlflowException as error:
        raise unknown("run", run_id, [row.id for row in find(store, limit=5)]) from error
    return _row(run, {run.info.experiment_id: store.client.get_experiment(run.info.experiment_id).name})


def entries(store: Store, run_id: str, folder: str | None = None) -> list[Any]:
    """Return what mlflow lists among a run's files, or in a folder of them.

    Raises
    ------
    MlflowException, OSError
        When they cannot be reached.
    """
    if store.destination is None:
        return list(store.client.list_artifacts(run_id, folder))
    return list(get_artifact_repository(_address(store, run_id), tracking_uri=store.uri).list_artifacts(folder))


def download(store: Store, run_id: str, artifact_path: str, folder: str | Path | None = None) -> Path:
    """Return a run's file or folder as a local one, to be read and not changed.

    Parameters
    ----------
    folder : path, optional
        Where to put a copy; else it stays where it is when it is local, or goes to a folder that is removed when
        this process ends.

    Raises
    ------
    InputError
        When the run or the file does not exist; the run's files are named.
    """
    run_id = get(store, run_id).id
    try:
        path = fetched(_address(store, run_id), artifact_path, store.uri, folder)
        if path.exists():
            return path
    except (MlflowException, OSError):
        pass
    names = [entry.path for entry in entries(store, run_id)]
    raise unknown(f"file of run {run_id}", artifact_path, names)


def duration(status: str, start: int, end: int | None) -> float | None:
    """Return how long a run took, in seconds, from times in ms; a run that was taken up keeps its earlier end."""
    return None if end is None or status == "RUNNING" else (end - start) / 1000


def moment(milliseconds: int | None) -> datetime:
    """Return a time in ms since 1970 in UTC; the last moment there is for what others wrote in a smaller unit."""
    try:
        return datetime.fromtimestamp((milliseconds or 0) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _address(store: Store, run_id: str) -> str:
    return behind(store.client.get_run(run_id).info.artifact_uri, store.destination)


def _row(run: Any, experiments: Mapping[str, str]) -> RunRow:
    info, tags = run.info, dict(run.data.tags)
    return RunRow(
        id=info.run_id,
        name=info.run_name or info.run_id[:8],
        experiment=experiments[info.experiment_id],
        status=info.status,
        start=moment(info.start_time),
        seconds=duration(info.status, info.start_time or 0, info.end_time),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=tags,
        parent=tags.get("mlflow.parentRunId"),
        steps={metric.key: metric.step for metric in getattr(run.data, "_metric_objs", [])},
    )


def configuration(store: Store, run_id: str) -> dict[str, Any]:
    """Read back what a run's `Run.config` was given, by section.

    Raises
    ------
    InputError
        When there is no such run, or it has no configuration.
    """
    values: dict[str, Any] = yaml.safe_load(download(store, run_id, "config.yaml").read_text(encoding="utf-8"))
    return values
