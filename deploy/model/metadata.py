"""What a model file says about itself: the ``stm`` entry of its metadata, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stm_models.errors import InputError

__all__ = ["KEY", "SCHEMA", "Distance", "InputSpec", "Interval", "ModelMetadata", "Target", "parse"]

KEY = "stm"
SCHEMA = 2


class _Part(BaseModel):
    # Keys that a later exporter adds under the same schema number are kept, not refused.
    model_config = ConfigDict(frozen=True, extra="allow")


class InputSpec(_Part):
    """The model's input: ``image`` (batch, channels, height, width) float32 in ``unit``."""

    kind: str
    channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    unit: str = "1"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.channels, self.height, self.width

    def agrees(self, other: InputSpec) -> bool:
        """Tell whether both take the same images, by all that both say: files of later versions say more."""
        own, theirs = self.model_dump(), other.model_dump()
        return all(own[name] == theirs[name] for name in own.keys() & theirs.keys())


class Target(_Part):
    """One predicted quantity."""

    name: str
    unit: str = "1"
    description: str = ""


class Distance(_Part):
    """How far held-out samples lie from the training data: quantiles of the output ``distance``."""

    quantiles: Mapping[str, float] = {}


class Interval(_Part):
    """Bounds around predictions: ``level`` is the share of new samples whose truth they hold."""

    level: float = Field(gt=0, lt=1)


class ModelMetadata(_Part):
    """Everything that a served model knows about itself.

    Attributes
    ----------
    explained : int
        Index of the target that explanations differentiate.
    data : mapping
        ``recipe`` and ``digest`` of the training data.
    distance : Distance
        ``quantiles`` of the output ``distance`` on held-out samples.
    interval : Interval or None
        Of the outputs ``lower`` and ``upper``, with what it was calibrated on.
    novelty : mapping or None
        What the p-value of the output ``novelty`` was calibrated on.
    calibration : mapping
        What the task turns predictions into answers with.
    answers : tuple of str
        Names of the outputs that are no maps, ``prediction`` the first.
    explanations : tuple of str
        Names of the outputs that are explanation maps; the first is the default.
    details : mapping
        Of explanations by name: how many steps or draws, and how well integrated gradients add up.
    refused : mapping of str to str
        Why the file does not have an explanation, by its name.
    precision : mapping
        ``kind`` of numbers (fp32, fp16, int8); of a smaller one the ``error``, ``budget`` and ``ends`` (of
        intervals) by target, in its unit, the largest change of the p-value of ``novelty``, and ``seconds`` by kind and
        batch.
    focusable : bool
        Whether the pixel of an answered map that is explained can be chosen.
    sha256 : str
        Of the model file, in hexadecimal; the one attribute that the file does not hold.
    """

    task: str
    input: InputSpec
    targets: tuple[Target, ...] = Field(min_length=1)
    explained: int = Field(default=0, ge=0)
    data: Mapping[str, Any] = {}
    run_id: str | None = None
    git_commit: str | None = None
    versions: Mapping[str, Any] = {}
    opset: int | None = None
    metrics: Mapping[str, Any] = {}
    distance: Distance = Distance()
    interval: Interval | None = None
    novelty: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] = {}
    answers: tuple[str, ...] = ("prediction",)
    explanations: tuple[str, ...] = ()
    details: Mapping[str, Mapping[str, Any]] = {}
    refused: Mapping[str, str] = {}
    precision: Mapping[str, Any] = {"kind": "fp32"}
    focusable: bool = False
    created: str | None = None
    sha256: str = ""

    @field_validator("novelty")
    @classmethod
    def _counted(cls, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        groups = 1 if value is None else value.get("groups", 1)
        if type(groups) is not int or groups < 1:
            raise ValueError(f"groups is {groups!r}: expected a number of states, 1 or more")
        return value

    @model_validator(mode="after")
    def _explained_exists(self) -> ModelMetadata:
        if self.explained >= len(self.targets):
            raise ValueError(f"explained is {self.explained}, but there are {len(self.targets)} targets")
        return self

    def calibrated_on(self, digest: str) -> list[str]:
        """Return what of the model was calibrated on the data set of this digest: intervals, novelty."""
        interval = {} if self.interval is None else self.interval.model_dump()
        parts = {"intervals": interval, "novelty": self.novelty or {}}
        return [name for name, about in parts.items() if about.get("digest") == digest]

    def as_dict(self) -> dict[str, Any]:
        """Return it all as plain JSON-able values."""
        return {"schema": SCHEMA, **self.model_dump(mode="json")}


def parse(entries: Mapping[str, str], *, sha256: str, source: str) -> ModelMetadata:
    """Read and check the metadata of an ONNX file.

    Parameters
    ----------
    entries : mapping of str to str
        The file's ``metadata_props``.
    sha256 : str
        Of the file.
    source : str
        How to call the file in an error.

    Raises
    ------
    InputError
        When the entry is missing, damaged, of a newer schema, or lacks a key.
    """
    way_out = "write the file with 'stm export'"
    text = entries.get(KEY)
    if text is None:
        raise InputError(f"{source} is an ONNX file without the metadata entry {KEY!r}: {way_out}")
    try:
        values = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deeply"
        raise InputError(f"{source}: its metadata entry {KEY!r} is no valid JSON ({reason}): {way_out}") from error
    if not isinstance(values, dict):
        raise InputError(f"{source}: its metadata entry {KEY!r} is no JSON object: {way_out}")
    schema = values.pop("schema", None)
    if type(schema) is not int or schema < 1:
        raise InputError(f"{source}: its metadata has schema {schema!r}, expected {SCHEMA}: {way_out}")
    if schema < SCHEMA:
        raise InputError(
            f"{source}: its metadata has schema {schema}, without intervals and novelty; expected {SCHEMA}: train the "
            "model again and write the file with 'stm export'"
        )
    if schema > SCHEMA:
        raise InputError(
            f"{source}: its metadata has schema {schema}, this version reads up to {SCHEMA}: upgrade stm-lab"
        )
    try:
        return ModelMetadata.model_validate({**values, "sha256": sha256})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in first["loc"]) or "metadata"
        raise InputError(f"{source}: its metadata is incomplete: {where}: {reason}: {way_out}") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")
