"""Requests that are not served: their status, and the JSON that says what was wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from starlette.exceptions import HTTPException

from deploy.serving.strict_json import dump_json
from stm_models.errors import InputError

__all__ = ["LOG", "Refused", "busy", "printable", "refusal"]

LOG = logging.getLogger("stm.serving")


class Refused(HTTPException):
    """A request that gets ``status`` and a message instead of an answer.

    Parameters
    ----------
    status : int
    message : str
        What was wrong, naming the field, and the way out.
    close : bool
        Whether the connection ends with it, for one whose body was not read to its end.
    headers : mapping, optional
    """

    def __init__(self, status: int, message: str, *, close: bool = False, headers: Mapping[str, str] = {}) -> None:
        super().__init__(status, message, headers={**headers, **({"connection": "close"} if close else {})})


def busy(message: str, seconds: int = 1, *, close: bool = False) -> Refused:
    """Return the answer 503 of a server that has enough to do, with when to ask again."""
    return Refused(503, f"{message}: ask again in {seconds} s", close=close, headers={"retry-after": str(seconds)})


def printable(text: str) -> str:
    """Return ``text`` with every control character escaped, so that it is one line wherever it is shown."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def refusal(error: Exception) -> tuple[int, bytes, Mapping[str, str]]:
    """Return status, JSON body and headers for what a request's handling raised; our own failures go to the log."""
    if isinstance(error, InputError):
        return 400, dump_json({"error": printable(str(error))}), {}
    if isinstance(error, HTTPException):
        return error.status_code, dump_json({"error": printable(str(error.detail))}), error.headers or {}
    LOG.error("a request failed", exc_info=error)
    return 500, dump_json({"error": "the server failed on this request; its log says why"}), {}
