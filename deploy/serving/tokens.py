"""A bearer token as a user gives it: a word, or a file that holds one."""

from __future__ import annotations

from pathlib import Path

from stm_models.errors import InputError

__all__ = ["check_token", "read_token"]


def check_token(token: str) -> str:
    """Return ``token`` where a header can carry it.

    Raises
    ------
    InputError
        Where none can.
    """
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise InputError("the token must be of printable ASCII characters without spaces, and not empty")
    return token


def read_token(path: str | Path) -> str:
    """Read the bearer token from a file, without the white space around it.

    Raises
    ------
    InputError
        When the file cannot be read or is empty, or no file is named.
    """
    if not str(path):
        raise InputError("--token-file is '': expected the name of a file with the token; leave it out to go without")
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the token file {path}: {error}") from error
    if not token:
        raise InputError(f"the token file {path} is empty: write a long random word into it")
    return token
