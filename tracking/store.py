"""Where runs, data sets and models are recorded: a SQLite file, a database or an MLflow server."""

from __future__ import annotations

import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stm_models.errors import InputError
from tracking import probe
from tracking.backend import MlflowClient, MlflowException, ViewType, create_database
from tracking.lock import exclusive
from tracking.passwords import redact
from tracking.spool import root as spool_root
from tracking.sqlite_address import address, path_of

__all__ = ["Store", "connect", "first_line", "missing", "patience", "recording"]

DEFAULT = "sqlite:///mlflow.db"
_WHAT = "tracking store"
_DATABASES = ("postgresql", "mysql", "mssql")
_PATIENCE = 10.0  # seconds that whoever records a run waits at its start
_LONGEST = 86_400.0
_FORMS = "sqlite:///FILE.db, http(s)://HOST:PORT or postgresql://USER@HOST/NAME"
_ANOTHER = "give another file with MLFLOW_TRACKING_URI=sqlite:///FILE.db"


@dataclass(frozen=True)
class Store:
    """A store that answered when it was opened, or is ``away``.

    Attributes
    ----------
    uri : str
        What a worker process passes to `connect` (or MLFLOW_TRACKING_URI) to reach the same store.
    client : mlflow.MlflowClient
    artifacts : str or None
        Where a new experiment keeps its files; ``None`` when the server decides.
    away : str or None
        Why the store did not answer; it can then only be recorded to.
    destination : str or None
        In a server's own process: where the files lie that it hands out under ``mlflow-artifacts:`` addresses.
    """

    uri: str
    client: Any
    artifacts: str | None
    away: str | None = None
    destination: str | None = None

    @property
    def remote(self) -> bool:
        """Whether files travel over HTTP."""
        return self.uri.startswith("http")

    @property
    def location(self) -> str:
        """The store's address for people, without a password."""
        return redact(self.uri)

    @property
    def folder(self) -> Path | None:
        """Where the SQLite file is; ``None`` for a server or another database."""
        return path_of(self.uri, _WHAT).parent if self.uri.startswith("sqlite") else None

    def reached(self) -> Store:
        """Return the store as it is now.

        Raises
        ------
        InputError
            When it does not answer.
        """
        if self.away is not None:
            return connect(self.uri)
        if self.remote:
            # Else a call to a server that is gone takes as long as all that mlflow's client does about it.
            probe.http(self.uri, self.location)
        return self

    def experiment(self, name: str) -> str:
        """Return the id of the experiment ``name``, created when it is new."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=self.artifacts))
            except MlflowException as error:
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise InputError(f"cannot create the experiment {name!r}: {first_line(error)}") from error
        if found.lifecycle_stage == "deleted":
            raise InputError(
                f"the experiment {name!r} is deleted; restore it with: "
                f"mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        return str(found.experiment_id)

    def experiments(self) -> dict[str, str]:
        """Return the names of all experiments by id, the newest first, without an empty default one."""
        found = self.client.search_experiments(view_type=ViewType.ACTIVE_ONLY, order_by=["creation_time DESC"])
        return {
            str(one.experiment_id): one.name
            for one in found
            if one.name != "Default" or self.client.search_runs([one.experiment_id], max_results=1)
        }

    def run_link(self, run_id: str) -> str:
        """Return the page of a run on the server, or the command that shows it."""
        if not self.remote:
            return f"mlflow ui --backend-store-uri {shlex.quote(self.location)}"
        info = self.client.get_run(run_id).info
        return f"{self.location}/#/experiments/{info.experiment_id}/runs/{run_id}"


def connect(uri: str | None = None, *, create: bool = True) -> Store:
    """Open the store, created first where it is a SQLite file that does not exist yet.

    Parameters
    ----------
    uri : str, optional
        Else the environment's MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working directory. The files
        of a SQLite store live beside it in ``mlartifacts``.
    create : bool
        ``False`` for who only reads: a file that does not exist is refused.

    Raises
    ------
    InputError
        Within seconds, when the store cannot be reached, read or written, or is not one.
    """
    uri, scheme = _address(uri)
    if scheme == "sqlite":
        path = path_of(uri, _WHAT)
        if not create and not path.exists():
            raise InputError(
                f"there is no tracking store at {path}: go to the folder where runs were recorded, or set "
                "MLFLOW_TRACKING_URI"
            )
        artifacts = (path.parent / "mlartifacts").as_uri()
        _create(path, artifacts)
        return _open(address(path), artifacts)
    if scheme in ("http", "https"):
        uri = uri.rstrip("/")
        probe.http(uri, redact(uri))
        return _open(uri, None)
    if scheme in _DATABASES:
        probe.database(uri, redact(uri))
        return _open(uri, Path("mlartifacts").absolute().as_uri())
    if scheme in ("", "file"):
        raise InputError(f"the tracking store {uri!r} is a plain folder or file: expected {_FORMS}")
    raise InputError(f"the tracking store {redact(uri)!r} has the unknown scheme {scheme!r}: expected {_FORMS}")


def recording(uri: str | None = None) -> Store:
    """Open the store to record runs in it: one that does not answer is returned all the same, ``away``.

    Raises
    ------
    InputError
        For an address that cannot be one, or a file that is no store.
    """
    uri, scheme = _address(uri)
    if scheme not in ("http", "https", *_DATABASES):
        return connect(uri)
    try:
        return probe.within(patience(_PATIENCE), lambda: connect(uri))
    except (InputError, TimeoutError) as error:
        reason = first_line(error)
    print(f"warning: {reason}; runs are kept in {spool_root()} until they can be sent", file=sys.stderr)
    return Store(uri.rstrip("/"), _Absent(reason), None, away=reason)


def patience(seconds: float) -> float:
    """Return how long to wait for a store that does not answer: STM_SPOOL_WAIT, else ``seconds``.

    Raises
    ------
    InputError
        When the variable is no number, below 0 or longer than a day.
    """
    text = os.environ.get("STM_SPOOL_WAIT", "").strip()
    try:
        found = float(text) if text else seconds
    except ValueError:
        found = math.nan
    if not 0 <= found <= _LONGEST:
        raise InputError(f"STM_SPOOL_WAIT is {text!r}: expected seconds, from 0 to {_LONGEST:g}")
    return found


def missing(uri: str | None = None) -> Path | None:
    """Return the SQLite file that `connect` would have to make first; ``None`` when there is none to make.

    Raises
    ------
    InputError
        When a SQLite address names no file.
    """
    uri, scheme = _address(uri)
    if scheme != "sqlite":
        return None
    path = path_of(uri, _WHAT)
    return None if _filled(path) else path


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without what SQLAlchemy puts before it."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return next((line for line in lines if not line.startswith("(raised as a result of")), lines[0])


class _Absent:
    """In place of the client of a store that is away."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        raise InputError(self._reason)


def _open(uri: str, artifacts: str | None) -> Store:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        client.search_experiments(max_results=1)
    except Exception as error:
        text = first_line(error).replace(uri, redact(uri))
        hint = f"; upgrade it with: mlflow db upgrade {redact(uri)}" if "out-of-date" in text else ""
        raise InputError(f"cannot use the tracking store {redact(uri)}: {text}{hint}") from error
    return Store(uri, client, artifacts)


def _address(uri: str | None) -> tuple[str, str]:
    uri = (uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT).strip()
    try:
        if "\0" in uri:
            raise ValueError("it holds a zero byte")
        return uri, urlsplit(uri).scheme.split("+")[0]
    except ValueError as error:
        raise InputError(f"the tracking store {redact(uri)!r} is no address ({error}): expected {_FORMS}") from error


def _filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _create(path: Path, artifacts: str) -> None:
    if _filled(path):  # it came there whole: nothing to wait for, and no lock to write beside it
        probe.sqlite(path, {"experiments", "runs"}, _WHAT, _ANOTHER)
        return
    with exclusive(path.with_name(f"{path.name}.lock")):
        probe.sqlite(path, {"experiments", "runs"}, _WHAT, _ANOTHER)
        if _filled(path):
            return
        # A new file is built aside, so that a process killed here leaves no half-made schema behind.
        part = path.with_name(f"{path.name}.new")
        part.unlink(missing_ok=True)
        try:
            create_database(address(part), artifacts)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
