"""The request and answer of MLflow's scoring protocol (``/invocations``), as pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deploy.model.image import as_batch
from deploy.serving.json_array import array_json, json_array
from deploy.serving.strict_json import parse_json
from stm_models.errors import InputError

__all__ = ["decode_invocation", "encode_predictions"]

_FORMS = ("inputs", "instances")


def decode_invocation(body: bytes, *, image: tuple[int, int, int], max_rows: int | None = None) -> NDArray[np.float32]:
    """Read ``{"inputs": rows}`` or ``{"instances": rows}`` into a (batch, C, H, W) float32 array.

    ``inputs`` may also be ``{"image": rows}``, and every one of ``instances`` ``{"image": row}``.

    Raises
    ------
    InputError
        For any other form, ragged rows, a wrong shape, too many rows, NaN or infinity.
    """
    request = parse_json(body)
    found = [form for form in _FORMS if form in request]
    if len(found) != 1:
        got = ", ".join(sorted(request))[:100] or "nothing"
        raise InputError(f"the body has {got}, expected one of {', '.join(_FORMS)}: nested lists (batch, C, H, W)")
    form = found[0]
    rows = request[form]
    if form == "inputs" and isinstance(rows, dict) and list(rows) == ["image"]:
        rows = rows["image"]
    if not isinstance(rows, list):
        raise InputError(f"{form} is {type(rows).__name__}, expected nested lists (batch, C, H, W)")
    if max_rows is not None and len(rows) > max_rows:
        raise InputError(f"{form} has {len(rows)} rows, at most {max_rows} in one request")
    if form == "instances" and rows and all(isinstance(row, dict) and list(row) == ["image"] for row in rows):
        rows = [row["image"] for row in rows]
    values = json_array(rows, form, "an array of float32 numbers, nested lists (batch, C, H, W)")
    return as_batch(values, image, max_rows)


def encode_predictions(prediction: NDArray[np.float32]) -> bytes:
    """Write (batch, T) predictions as ``{"predictions": [[...], ...]}``."""
    return b"".join((b'{"predictions":', *array_json(prediction), b"}"))
