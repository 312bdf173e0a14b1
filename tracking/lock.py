"""One process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stm_models.errors import InputError

__all__ = ["advisory", "exclusive"]


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Hold the lock file ``path``; it is released by the system even when the process is killed.

    Raises
    ------
    InputError
        When the file cannot be created.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(
            f"cannot write to {path.parent}: {error.strerror}; choose a folder that you may write"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def advisory(engine: Any, name: str) -> Iterator[None]:
    """Hold the lock ``name`` of a PostgreSQL database (SQLAlchemy's ``engine``); it ends with the connection."""
    import sqlalchemy

    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": name})
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(hashtext(:name))"), {"name": name})
