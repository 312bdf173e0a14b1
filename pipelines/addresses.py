"""What a MODEL on the command line stands for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stm_models.errors import InputError
from tracking.addresses import MODEL, REGISTERED

if TYPE_CHECKING:
    from deploy.serving.catalog import Version
    from tracking.models import ModelVersionInfo
    from tracking.store import Store

__all__ = ["MODEL", "local_file", "registered", "run_of", "served_version"]


def local_file(model: str) -> Path:
    """Return the ONNX file that ``model`` names; a plain file needs no tracking store.

    Raises
    ------
    InputError
        When the store cannot be reached or has no such model.
    """
    if model.endswith(".onnx"):
        return Path(model)
    from tracking.models import resolve
    from tracking.store import connect

    return resolve(connect(create=False), model)


def registered(store: Store, address: str) -> ModelVersionInfo | None:
    """Return the version of a registered model that ``address`` names; None for an address of another kind.

    Raises
    ------
    InputError
        When there is no such model.
    """
    from tracking.models import version

    match = REGISTERED.fullmatch(address)
    return version(store, match[1], match[2]) if match else None


def run_of(store: Store, address: str) -> str:
    """Return the id of the run that ``address`` names: itself, or the one that a registered model is of.

    Raises
    ------
    InputError
        For another kind of address, or when there is no such model.
    """
    if info := registered(store, address):
        return info.run_id
    if match := re.fullmatch(r"(?:runs:/+)?(\w+)/?", address):
        return match[1]
    raise InputError(
        f"cannot read {address!r}: expected a run's id, runs:/ID, models:/NAME@ALIAS or models:/NAME/VERSION"
    )


def served_version(model: str) -> Version:
    """Return what a server puts into service for ``model``: the file, and the version that the registry gives it.

    The version is asked first and its file by that number, so that an alias that moves meanwhile mixes nothing.

    Raises
    ------
    InputError
        When the store cannot be reached or has no such model.
    """
    from deploy.serving.catalog import Version

    match = REGISTERED.fullmatch(model)
    if match is None:
        return Version("1", local_file(model))
    from tracking.registry import version
    from tracking.store import connect

    number = str(version(connect(create=False), match[1], match[2]).version)
    return Version(number, local_file(f"models:/{match[1]}/{number}"))
