"""What a MODEL on the command line stands for."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL", "local_file"]

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
