"""What is known of the same place from elsewhere: a table of positions, or a map of the bound states."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.signal.mixture import reference_positions
from stm_models.tasks.impurity.answers import positions
from stm_models.tasks.impurity.scoring import scores

__all__ = ["read_reference", "reference_scores"]

Floats = NDArray[np.float64]
_TABLES = (".csv", ".txt", ".tsv")
_WAYS = (("y_px", "x_px", False), ("y_nm", "x_nm", True), ("y", "x", False))


def reference_scores(answer: Mapping[str, Any], path: Path) -> dict[str, float]:
    """Score an answer's positions against a reference of the same field; names begin with ``reference_``.

    Raises
    ------
    InputError
        See `read_reference`.
    """
    known, shape = read_reference(path, answer["pixel_nm"])
    found = positions(answer)
    everything = np.concatenate([known, found, np.ones((1, 2))])
    frame = shape or tuple(int(n) for n in np.ceil(everything.max(axis=0)) + 1)
    result = scores([found], [known], (frame[0], frame[1]))
    return {f"reference_{name}": value for name, value in result.items()} | {"reference_known": float(len(known))}


def read_reference(path: Path, pixel_nm: list[float]) -> tuple[Floats, tuple[int, int] | None]:
    """Read positions (N, 2), y and x in pixels, and the shape of the field where the file tells it.

    Parameters
    ----------
    path : Path
        A table (.csv, .txt, .tsv) with columns x_px and y_px, or x_nm and y_nm, or x and y in pixels; any other
        readable file is a bound-state map, to which a Gaussian mixture is fitted.
    pixel_nm : (height, width)

    Raises
    ------
    InputError
        For a file that cannot be read, without such columns, without a position, or a map without states.
    """
    if path.suffix.lower() in _TABLES:
        return _table(path, pixel_nm), None
    from stm_models.data.readers import read

    values = np.asarray(read(path).values)
    if values.ndim != 3 or len(values) != 1:
        raise InputError(
            f"{path} holds {len(values)} maps: expected the one map at the band bottom; save it by itself, "
            "or choose it with --reference-bias"
        )
    return reference_positions(values[0]).positions, (values.shape[1], values.shape[2])


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
