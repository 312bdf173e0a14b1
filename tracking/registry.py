"""Registered models: their versions, aliases and tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stm_models.errors import InputError, unknown
from tracking import rows
from tracking.backend import MlflowException, selected
from tracking.store import Store, first_line
from tracking.values import text_of

__all__ = [
    "ModelVersionInfo", "champion", "describe_version", "logged_model", "register", "set_alias", "tag_version",
    "version", "versions",
]  # fmt: skip

CHAMPION = "champion"


@dataclass(frozen=True)
class ModelVersionInfo:
    """One version of a registered model.

    Attributes
    ----------
    metrics : mapping of str to float
        Those of the model's metadata when it was logged.
    digest : str or None
        Content digest of the data that it was trained on.
    sha256 : str
        Of the ONNX file.
    model_id : str
        mlflow's id of the logged model.
    """

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    digest: str | None
    sha256: str
    model_id: str


def register(store: Store, name: str, run_id: str) -> int:
    """Make the run's model the next version of ``name`` and return its number.

    Raises
    ------
    InputError
        When the run does not exist or logged no model.
    """
    client, logged = store.client, logged_model(store, run_id)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise InputError(f"cannot register the model {name!r}: {first_line(error)}") from error
    with selected(store.uri):
        made = client.create_model_version(
            name, source=f"models:/{logged.model_id}", run_id=run_id, model_id=logged.model_id,
            tags={key: value for key, value in logged.tags.items() if not key.startswith("mlflow.")},
        )  # fmt: skip
    return int(made.version)


def set_alias(store: Store, name: str, alias: str, number: int) -> None:
    """Point ``name@alias`` at a version.

    Raises
    ------
    InputError
        When the model or the version does not exist, or mlflow refuses the alias.
    """
    version(store, name, number)
    try:
        store.client.set_registered_model_alias(name, alias, str(number))
    except MlflowException as error:
        raise InputError(f"cannot set the alias {alias!r} of {name}: {first_line(error)}") from error


def tag_version(store: Store, name: str, number: int, tags: Mapping[str, Any]) -> None:
    """Set tags of a version, e.g. why it was promoted or not."""
    version(store, name, number)
    for key, value in tags.items():
        store.client.set_model_version_tag(name, str(number), key, text_of(value))


def describe_version(store: Store, name: str, number: int, text: str) -> None:
    """Set the description (Markdown) that people see beside a version."""
    version(store, name, number)
    store.client.update_model_version(name, str(number), text)


def names(store: Store) -> list[str]:
    """Return the names of all registered models, sorted, from however many pages the store gives."""
    found, token = [], None
    while True:
        page = store.client.search_registered_models(page_token=token)
        found += [model.name for model in page]
        token = page.token
        if not token:
            return sorted(found)


def versions(store: Store, name: str) -> list[ModelVersionInfo]:
    """Return all versions of a model, the newest first.

    Raises
    ------
    InputError
        When no model has that name; those that exist are named.
    """
    try:
        aliases = store.client.get_registered_model(name).aliases
    except MlflowException as error:
        raise unknown("registered model", name, names(store)) from error
    found = _found(store, name)
    by_version: dict[int, list[str]] = {}
    for alias, number in aliases.items():
        by_version.setdefault(int(number), []).append(alias)
    infos = [_info(one, tuple(sorted(by_version.get(int(one.version), [])))) for one in found]
    return sorted(infos, key=lambda info: -info.version)


def _found(store: Store, name: str) -> list[Any]:
    """Return a model's versions as mlflow has them; its filter has no way to write a name with both quotes."""
    quote = next((mark for mark in ("'", '"') if mark not in name), None)
    asked = None if quote is None else f"name={quote}{name}{quote}"
    found: list[Any] = []
    token = None
    while True:
        page = store.client.search_model_versions(asked, page_token=token)
        found += [one for one in page if one.name == name]
        token = page.token
        if not token:
            return found


def version(store: Store, name: str, wanted: int | str) -> ModelVersionInfo:
    """Return one version of a model, by number or by alias.

    Raises
    ------
    InputError
        When the model, the version or the alias does not exist; those that exist are named.
    """
    every = versions(store, name)
    for info in every:
        if wanted in (info.version, str(info.version)) or wanted in info.aliases:
            return info
    choices = [f"{name}@{alias}" for info in every for alias in info.aliases]
    choices += [f"{name}/{info.version}" for info in every]
    raise unknown("model version", f"{name}{'/' if str(wanted).isdigit() else '@'}{wanted}", choices)


def champion(store: Store, name: str) -> ModelVersionInfo | None:
    """Return the version that the alias ``champion`` points at; ``None`` when there is none yet."""
    try:
        return version(store, name, CHAMPION)
    except InputError:
        return None


def logged_model(store: Store, run_id: str) -> Any:
    """Return mlflow's record of a run's model, the one logged last where there are several.

    Raises
    ------
    InputError
        When the run does not exist or logged no model.
    """
    row = rows.get(store, run_id)
    if "model.id" not in row.tags:
        raise InputError(
            f"run {run_id} ({row.name}, {row.outcome}) logged no ONNX model: "
            f"make one of a finished training with stm export {run_id} --out MODEL.onnx"
        )
    return store.client.get_logged_model(row.tags["model.id"])


def _info(found: Any, aliases: tuple[str, ...]) -> ModelVersionInfo:
    tags = dict(found.tags)
    numbers = {key.removeprefix("metric."): _number(text) for key, text in tags.items() if key.startswith("metric.")}
    metrics = {key: value for key, value in numbers.items() if value is not None}
    return ModelVersionInfo(
        name=found.name, version=int(found.version), run_id=found.run_id or "", aliases=aliases, tags=tags,
        metrics=metrics, digest=tags.get("data.digest"), sha256=tags.get("sha256", ""),
        model_id=str(found.source).removeprefix("models:/"),
    )  # fmt: skip


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # anybody's tag
