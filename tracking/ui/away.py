"""A store that does not answer, in words."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from tracking.backend import MlflowException
from tracking.delivery import permanent
from tracking.store import Store, first_line

__all__ = ["TROUBLE", "words"]

TROUBLE = (MlflowException, OSError)
"""What a client raises whose store or files cannot be reached."""


def words(store: Store, error: BaseException) -> str | None:
    """Return what to tell where ``error``, or its cause, is a store that does not answer; ``None`` for another."""
    cause = error if isinstance(error, TROUBLE) else error.__cause__
    if not isinstance(cause, (*TROUBLE, SQLAlchemyError)) or (cause is not error and permanent(cause, store)):
        return None
    reason = first_line(cause).replace(store.uri, store.location)
    return (
        f"The tracking store {store.location} does not answer: {reason}. See that it runs and can be reached from "
        "this machine, then reload this page."
    )
