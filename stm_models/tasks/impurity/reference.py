"""What is known of the same place from elsewhere: a table of positions, or a map of the bound states."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.signal.mixture import reference_positions
from stm_models.tasks.impurity.answers import positions
from stm_models.tasks.impurity.measured import to_pixels
from stm_models.tasks.impurity.scoring import scores

__all__ = ["read_reference", "reference_scores"]

Floats = NDArray[np.float64]
_TABLES = (".csv", ".txt", ".tsv")
_WAYS = (("y_px", "x_px", False), ("y_nm", "x_nm", True), ("y", "x", False))


def reference_scores(answer: Mapping[str, Any], path: Path, bias: float | None = None) -> dict[str, float]:
    """Score an answer's positions against a reference of the same field; names begin with ``reference_``.

    Distances count in the model's pixels, as in every other score.

    Raises
    ------
    InputError
        See `read_reference`; also when positions were found outside a map that does not say how large it is.
    """
    known, shape = read_reference(path, answer["pixel_nm"], answer["step"], bias)
    found = positions(answer)
    if shape is not None and len(found) and np.any(found.max(axis=0) > np.array(shape) - 0.5):
        y, x = found.max(axis=0)
        raise InputError(
            f"{path} is a field of {shape[0]} x {shape[1]} of the measured file's pixels (height x width), but "
            f"impurities were found up to y = {y:.0f} and x = {x:.0f}: expected a map of the same place; "
            "save it with its size"
        )
    step = np.array(answer["step"])
    found, known = ((one + 0.5) / step - 0.5 for one in (found, known))
    if shape is not None:
        frame = np.rint(np.array(shape) / step).astype(int)
    else:
        frame = np.ceil(np.concatenate([known, found, np.ones((1, 2))]).max(axis=0)).astype(int) + 1
    result = scores([found], [known], (int(frame[0]), int(frame[1])))
    return {f"reference_{name}": value for name, value in result.items()} | {"reference_known": float(len(known))}


def read_reference(
    path: Path, pixel_nm: list[float], step: Sequence[float] = (1.0, 1.0), bias: float | None = None
) -> tuple[Floats, tuple[int, int] | None]:
    """Read positions (N, 2), y and x in pixels, and the shape of the field where the file tells it.

    Parameters
    ----------
    path : Path
        A table (.csv, .txt, .tsv) with columns x_px and y_px, or x_nm and y_nm, or x and y in pixels; any other
        readable file is a bound-state map, to which a Gaussian mixture is fitted.
    pixel_nm : (height, width)
        Of the pixels that positions are given in. A map that says its size may have others; one without has these.
    step : (height, width)
        So many of these pixels are one of the model's, to which a map is interpolated before it is fitted.
    bias : float, V, optional
        The map nearest to it is taken from a stack.

    Raises
    ------
    InputError
        For a file that cannot be read, without such columns, without a position, a map without states, or several
        maps of which none is chosen.
    """
    if path.suffix.lower() in _TABLES:
        if bias is not None:
            raise InputError(f"--reference-bias is {bias:g}, but {path} is a table of positions: leave it out")
        return _table(path, pixel_nm), None
    from stm_models.data.readers import read

    raw = read(path, bias=bias)
    if raw.points is not None or min(raw.values.shape[1:]) < 2:
        raise InputError(f"{path} is no map on a grid of pixels: expected the map at the band bottom, or a table")
    if len(raw.values) != 1:
        raise InputError(
            f"{path} holds {len(raw.values)} maps: expected the one map at the band bottom; choose it with "
            "--reference-bias V, or save it by itself"
        )
    height, width = raw.values.shape[1:]
    own = np.array(pixel_nm) if raw.size_nm is None else np.array(raw.size_nm) / (height, width)
    wanted = math.sqrt(math.prod(pixel_nm) * math.prod(step))
    maps, shrunk = to_pixels(raw.values, (float(own[0]), float(own[1])), wanted, str(path))
    ratio = own / pixel_nm  # pixels of the answer in one of the file
    field = np.maximum(np.rint(ratio * (height, width)), 1)
    found = (reference_positions(maps[0]).positions + 0.5) * shrunk * ratio - 0.5
    return found, (int(field[0]), int(field[1]))


def _table(path: Path, pixel_nm: list[float]) -> Floats:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the table {path}: {error}; give a .csv file with x_px and y_px") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    separator = "\t" if lines and "\t" in lines[0] else ","
    table = csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
    names = [name.strip() for name in table.fieldnames or []]
    table.fieldnames = names
    way = next((way for way in _WAYS if {*way[:2]} <= {*names}), None)
    if way is None:
        raise InputError(
            f"{path} has the columns {', '.join(names) or 'none'}: expected x_px and y_px, or x_nm and y_nm, or x and y"
        )
    y, x, nm = way
    try:
        values = np.array([[float(row[y]), float(row[x])] for row in table]).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has a row that is no position ({error}): expected numbers in {x} and {y}") from error
    if not len(values) or not np.all(np.isfinite(values)):
        raise InputError(f"{path} holds {len(values)} positions: expected at least one, all finite")
    return values / np.asarray(pixel_nm) - 0.5 if nm else values
