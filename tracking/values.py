"""Configurations and their values as MLflow takes them: flat, as text, with names of its characters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["flatten", "key_of", "params_of", "tags_of", "text_of"]

_PARAM_LIMIT = 6000  # characters of a parameter's value
_TAG_LIMIT = 5000


def params_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return every value as text under ``section.key``; a long one is cut."""
    return {key_of(key): _cut(text_of(value), _PARAM_LIMIT) for key, value in flatten(values)}


def tags_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Return every value as text; a long one is cut."""
    return {key_of(key): _cut(text_of(value), _TAG_LIMIT) for key, value in values.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their path, ``section.key``."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def key_of(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-./: ]", "_", name)[:250]


def text_of(value: Any) -> str:
    """Return text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
