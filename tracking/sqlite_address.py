"""Addresses of SQLite files, in which characters of a path that mean something in a URL are written as in one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from stm_models.errors import InputError

__all__ = ["address", "path_of"]

_SPECIAL = "%?#{}"  # the braces are Optuna's


def address(path: Path) -> str:
    """Return the address of the file ``path``.

    Examples
    --------
    >>> address(Path("/data/50 %/runs.db"))
    'sqlite:////data/50 %25/runs.db'
    >>> path_of(address(Path("/data/is it?/#1.db")), "store").as_posix()
    '/data/is it?/#1.db'
    """
    return "sqlite:///" + "".join(f"%{ord(one):02X}" if one in _SPECIAL else one for one in str(path))


def path_of(uri: str, what: str) -> Path:
    """Return the absolute path of the file that ``uri`` names; ``what`` is the file's, for the error.

    Raises
    ------
    InputError
        When it names none.
    """
    name = unquote(uri.partition(":///")[2].partition("?")[0])
    if not name or name == ":memory:":
        raise InputError(f"the {what} {uri!r} names no file: expected sqlite:///FILE.db")
    return Path(name).absolute()
