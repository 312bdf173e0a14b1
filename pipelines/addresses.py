"""What a MODEL on the command line stands for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stm_models.errors import InputError

if TYPE_CHECKING:
    from tracking.store import Store

__all__ = ["MODEL", "local_file", "run_of"]

MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID or FILE.onnx"


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

    return resolve(connect(), model)


def run_of(store: Store, address: str) -> str:
    """Return the id of the run that ``address`` names: itself, or the one that a registered model is of.

    Raises
    ------
    InputError
        For another kind of address, or when there is no such model.
    """
    from tracking.models import version

    if match := re.fullmatch(r"models:/+([^/@]+)[@/]([^/@]+)", address):
        return version(store, match[1], match[2]).run_id
    if match := re.fullmatch(r"(?:runs:/+)?(\w+)/?", address):
        return match[1]
    raise InputError(
        f"cannot read {address!r}: expected a run's id, runs:/ID, models:/NAME@ALIAS or models:/NAME/VERSION"
    )
