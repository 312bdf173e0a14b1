"""What the machine or the tracking store refuses, told so that its user can mend it."""

from __future__ import annotations

import errno
import os
import re
import sys

from tracking.passwords import redact

__all__ = ["told"]

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Libraries' own errors, which carry no number: SQLite, safetensors, numpy.
_FULL = re.compile(
    r"database or disk is full|no space left on device|disk quota exceeded|\d+ requested and \d+ written", re.IGNORECASE
)
_CLIENTS = ("mlflow.exceptions", "requests.exceptions")  # the second one brings mlflow's files
_READ_ONLY = re.compile(r"attempt to write a readonly database|read-only file system", re.IGNORECASE)


def told(error: BaseException) -> str | None:
    """Return what to tell of a full or protected disk, a removed working directory, a name that the locale cannot
    write, or a tracking store.

    ``None`` for any other error. What an error was raised from counts too.
    """
    one: BaseException | None = error
    seen: set[int] = set()
    refused: str | None = None
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        name = getattr(one, "filename", None) or "a file"
        number = one.errno if isinstance(one, OSError) else None
        if number in _OUT_OF_SPACE or _FULL.search(str(one)):
            return f"no space left writing {name}: free some and run the same command again"
        if number in _NOT_ALLOWED:
            return f"{name}: {one.strerror}; choose a place that you may write"  # type: ignore[attr-defined]
        if number == errno.ENAMETOOLONG:
            return f"the name {str(name)[:60]!r}... is longer than the file system allows: choose a shorter one"
        if isinstance(one, FileNotFoundError) and _nowhere():
            return "the working directory was removed: change to one that exists and run the same command again"
        if _READ_ONLY.search(str(one)):
            return "the disk or a database on it cannot be written; choose a place that you may write"
        if isinstance(one, UnicodeEncodeError) and "surrogates" in one.reason:
            return (
                f"a file has a name that this locale, whose encoding is {sys.getfilesystemencoding()}, cannot write: "
                "set PYTHONUTF8=1 and run the same command again"
            )
        if refused is None and _is_of_mlflow(one):
            refused = (
                f"the tracking store refuses: {redact(str(one) or type(one).__name__)}; "
                "run the same command again once it answers and lets you"
            )
        one = one.__cause__ or one.__context__
    return refused


def _nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_of_mlflow(error: BaseException) -> bool:
    mlflow, requests = map(sys.modules.get, _CLIENTS)  # not imported for its sake: that takes seconds
    if mlflow is not None and isinstance(error, mlflow.MlflowException):
        return True
    return requests is not None and isinstance(error, requests.RequestException)
