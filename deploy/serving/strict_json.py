"""JSON as it may come from anybody: read strictly, and written, by pydantic's own fast parser."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json, to_json

from stm_models.errors import InputError

__all__ = ["dump_json", "mapping", "parse_json"]

_CONSTANT = re.compile(rb"\b(NaN|Infinity)\b")


def parse_json(text: bytes) -> dict[str, Any]:
    """Read a JSON object; NaN and infinity, which JSON does not have, are refused.

    Nesting deeper than 200 and integers of more than 4300 digits are refused while parsing, before anything of
    that size is made.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        constant = _CONSTANT.search(text)
        reason = f"{constant[1].decode()} is no JSON number" if constant else str(error)
        raise InputError(f"the body is no valid JSON: {reason[:200]}") from error
    if not isinstance(value, dict):
        raise InputError(f"the body is a JSON {type(value).__name__}, expected an object")
    return value


def dump_json(value: Any) -> bytes:
    """Write plain values as JSON; a number that is not finite becomes null."""
    return to_json(value, inf_nan_mode="null")


def mapping(value: object, where: str) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object.

    Raises
    ------
    InputError
        Naming ``where`` it stood.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where} is {type(value).__name__}, expected an object")
    return value
