"""Quick checks of a store's address, before mlflow's own client retries for minutes."""

from __future__ import annotations

import os
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from stm_models.errors import InputError

__all__ = ["database", "http", "sqlite", "within"]

Result = TypeVar("Result")
PATIENCE = 4.0  # seconds
_REMEDY = "check MLFLOW_TRACKING_URI, or unset it to use mlflow.db in the working directory"


def http(uri: str, shown: str) -> None:
    """Ask ``uri`` whether it is an MLflow server.

    Raises
    ------
    InputError
        When nothing answers within seconds, or something that is no MLflow server does.
    """

    def ask() -> None:
        for path in ("/health", "/version"):
            request = urllib.request.Request(uri + path)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE / 2) as answer:  # noqa: S310
                    if answer.status == 200:
                        return
            except urllib.error.HTTPError as error:
                if error.code in (401, 403):
                    return
        raise OSError("something answers there, but it is no MLflow server")

    _limited(ask, shown)


def database(uri: str, shown: str) -> None:
    """Open one connection to the database at ``uri``.

    Raises
    ------
    InputError
        When it cannot be opened within seconds, or its driver is missing.
    """

    def ask() -> None:
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri)
        try:
            with engine.connect():
                pass
        finally:
            engine.dispose()

    _limited(ask, shown)


def sqlite(path: Path, tables: set[str], what: str, way_out: str) -> None:
    """Check that the file ``path`` is free, or holds the ``tables`` of the store that is to be opened.

    Raises
    ------
    InputError
        When it is no SQLite file, another program's, or may not be written.
    """
    if not path.exists():
        return
    if not path.is_file() or not os.access(path, os.W_OK):
        raise InputError(f"the {what} {path} is no file that you may write; {way_out}")
    try:
        # Not read-only: what a killed writer left half done is undone by the next one who opens the file.
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
        try:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise InputError(f"the {what} {path} is no readable SQLite file: {error}; {way_out}") from error
    if names and not tables <= names:
        raise InputError(f"the {what} {path} belongs to another program (its tables are others); {way_out}")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what ``call`` returns, or raise what it raises.

    Raises
    ------
    TimeoutError
        When it takes longer; it goes on in a thread that nobody waits for.
    """
    done = threading.Event()
    results: list[Result] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # drivers raise their own kinds
            problems.append(error)
        done.set()

    # A thread, because no timeout of a socket covers the look-up of a name.
    threading.Thread(target=work, daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError(f"no answer in {seconds:g} s")
    if problems:
        raise problems[0]
    return results[0]


def _limited(ask: Callable[[], None], shown: str) -> None:
    try:
        within(PATIENCE, ask)
    except Exception as error:
        reason = getattr(error, "reason", None) or getattr(error, "orig", None) or error
        problem = (str(reason).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot reach the tracking store {shown}: {problem}; {_REMEDY}") from error
