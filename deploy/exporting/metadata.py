"""The ``stm`` entry that makes a model file describe itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, Field

from deploy.model.metadata import KEY, SCHEMA
from stm_models.config import Config, validate
from stm_models.errors import InputError

__all__ = ["KEY", "SCHEMA", "agree", "check", "complete"]

_SHARED = ("task", "input", "targets", "explained", "data")


class _Open(Config):
    model_config = ConfigDict(extra="allow")


class _Data(_Open):
    recipe: str
    digest: str


class _Distance(_Open):
    quantiles: dict[str, float] = Field(min_length=1)


class _Interval(_Open):
    level: float = Field(gt=0, lt=1)


class _Given(Config):
    """What the caller of an export knows; the exporter adds the rest."""

    task: str
    input: dict[str, Any]
    targets: list[dict[str, Any]] = Field(min_length=1)
    explained: int = Field(ge=0)
    data: _Data
    run_id: str | None
    git_commit: str | None
    metrics: dict[str, float | None]
    distance: _Distance
    calibration: dict[str, Any] = Field(default_factory=dict)
    interval: _Interval | None = None
    novelty: dict[str, Any] | None = None


def check(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata`` as plain JSON values.

    Parameters
    ----------
    metadata : mapping
        task, input, targets, explained, data (recipe, digest), run_id, git_commit, metrics, distance
        (quantiles) and calibration, and nothing else.

    Raises
    ------
    InputError
        When a key is missing, unknown, of the wrong kind or no JSON value, or ``explained`` is no target.
    """
    where = "metadata of the export"
    given = validate(_Given, metadata, where)
    if given.explained >= len(given.targets):
        raise InputError(
            f"{where}: explained is {given.explained}, but there are {len(given.targets)} targets, counted from 0"
        )
    try:
        values: dict[str, Any] = json.loads(json.dumps(given.model_dump(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}: only finite numbers, text, lists and mappings fit") from error
    return values


def agree(metadata: Mapping[str, Any], info: Mapping[str, Any], bundle: object) -> None:
    """Make sure that checked ``metadata`` tell the same of the model as its bundle's ``info``.

    Raises
    ------
    InputError
        Naming the first key that differs.
    """
    for key in _SHARED:
        if metadata[key] != json.loads(json.dumps(info[key])):
            raise InputError(
                f"metadata of the export: {key} is {_short(metadata[key])}, "
                f"but {bundle} was trained with {_short(info[key])}: pass the bundle's own"
            )


def complete(
    metadata: Mapping[str, Any],
    opset: int,
    versions: Mapping[str, str],
    answers: list[str],
    explanations: list[str],
    *,
    focusable: bool = False,
    details: Mapping[str, Any] | None = None,
    refused: Mapping[str, str] | None = None,
    precision: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of the entry: checked ``metadata`` and what the exporter knows, with the time (UTC).

    Parameters
    ----------
    metadata : mapping
        As `check` returns them.
    opset : int
    versions : mapping of str to str
        Of what the file was made with, by name.
    answers, explanations : list of str
        Names of the outputs that are no maps, and of those that are.
    focusable : bool
        Whether the pixel of an answered map that is explained can be chosen.
    details : mapping, optional
        What else there is to tell of explanations, by their names.
    refused : mapping of str to str, optional
        Why other explanations are not there, by their names.
    precision : mapping, optional
        The ``kind`` of numbers and what it costs; by default ``fp32``.

    Returns
    -------
    str
        A JSON object.

    Raises
    ------
    ValueError
        For NaN or infinity in what the exporter knows.
    """
    entry = {
        "schema": SCHEMA,
        **metadata,
        "versions": dict(versions),
        "opset": opset,
        "answers": answers,
        "explanations": explanations,
        "focusable": focusable,
        "details": dict(details or {}),
        "refused": dict(refused or {}),
        "precision": dict(precision or {"kind": "fp32"}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(entry, allow_nan=False)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
