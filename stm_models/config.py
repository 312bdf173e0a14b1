"""Typed configuration: one frozen, validated object per entry point."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from stm_models.errors import InputError

__all__ = ["NO_YAML", "Config", "merge", "parse_assignments", "validate"]

NO_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What reading a text as YAML may raise: dates and numbers that are none, nesting without end."""


class Config(BaseModel):
    """Base of every configuration: immutable, unknown keys, NaN and truth values for numbers refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            kind = cls.model_fields[str(info.field_name)].annotation
            kinds = {kind, *get_args(kind)}
            if bool not in kinds and kinds & {int, float}:
                raise ValueError("expected a number")
        return value


AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def validate(kind: type[AnyConfig], values: Mapping[str, Any], where: str) -> AnyConfig:
    """Build ``kind`` from ``values``.

    Raises
    ------
    InputError
        One line naming the key, the value got, what is expected and the keys that exist.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(kind, error)}") from error


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Turn ``["a.b=1;a.d=x", "c=[1, 2]"]`` into a nested mapping; values are read as YAML.

    Raises
    ------
    InputError
        For a pair without key or sign, or a value that is no YAML.

    Examples
    --------
    >>> parse_assignments(["simulate.draws=2; train.network=conv"])
    {'simulate': {'draws': 2}, 'train': {'network': 'conv'}}
    """
    result: dict[str, Any] = {}
    for pair in (pair for text in texts for pair in text.split(";") if pair.strip()):
        key, sign, text = pair.partition("=")
        parts = key.strip().split(".")
        if not sign or not all(parts):
            raise InputError(f"--set got {pair!r}: expected section.key=value, e.g. --set train.epochs=20")
        try:
            value = yaml.safe_load(text)
        except NO_YAML as error:
            raise InputError(f"--set got {pair[:200]!r}: the value is no valid YAML") from error
        for part in reversed(parts[1:]):
            value = {part: value}
        result = merge(result, {parts[0]: value})
    return result


def merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``extra`` laid over it, nested mappings merged key by key.

    An empty mapping below another one takes all away that was there, as ``--set train.options={}`` asks for.

    Examples
    --------
    >>> merge({"train": {"epochs": 3, "options": {"width": 8}}}, {"train": {"options": {"depth": 2}}})
    {'train': {'epochs': 3, 'options': {'width': 8, 'depth': 2}}}
    >>> merge({"train": {"epochs": 3, "options": {"width": 8}}}, {"train": {"options": {}}})
    {'train': {'epochs': 3, 'options': {}}}
    """
    return _merged(base, extra, nested=False)


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any], *, nested: bool) -> dict[str, Any]:
    result = dict(base)
    for key, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value, nested=True) if both and (value or not nested) else value
    return result


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"]) or "the whole"
    if first["type"] == "extra_forbidden":
        names = list(kind.model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"unknown key {path!r}{hint}; the keys are {', '.join(names)}"
    got = "" if first["type"] == "missing" else f", got {first['input']!r}"
    more = len(error.errors()) - 1
    also = f" (and {more} more)" if more else ""
    return f"{path}: {first['msg'].removeprefix('Value error, ')}{got}{also}"
