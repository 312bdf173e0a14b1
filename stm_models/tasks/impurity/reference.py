"""What is known of the same place from elsewhere: a table of positions, or a map of the bound states."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.signal.matching import match
from stm_models.signal.mixture import reference_positions
from stm_models.signal.preprocessing import finished_rows
from stm_models.tasks.impurity.answers import positions
from stm_models.tasks.impurity.measured import to_pixels
from stm_models.tasks.impurity.scoring import TOLERANCE, scores
from stm_models.tasks.impurity.spec import CLOSE_PIXELS
from stm_models.tasks.inputs import RawMap, Reference

__all__ = ["Known", "read_reference", "reference_scores"]

Floats = NDArray[np.float64]
_TABLES = (".csv", ".txt", ".tsv")
_WAYS = (("y_px", "x_px", False), ("y_nm", "x_nm", True), ("y", "x", False))


@dataclass(frozen=True)
class Known:
    """What a reference tells, in pixels of the measured file.

    Attributes
    ----------
    positions : (N, 2) float64
        y and x.
    shape : (height, width) or None
        Of the field, where the file tells it.
    rows : (float, float) or None
        Edges of the rows that a map was recorded in, counted from the lower edge of the first.
    size_nm : (height, width) or None
        Of the field, a map's.
    notes : tuple of str
    """

    positions: Floats
    shape: tuple[int, int] | None = None
    rows: tuple[float, float] | None = None
    size_nm: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def reference_scores(
    answer: Mapping[str, Any], about: Mapping[str, Any], reference: Reference
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Score an answer's positions against a reference of the same field; names begin with ``reference_``.

    Distances count in the model's pixels, as in every other score. Only rows count that an unfinished scan did reach.
    Parameters and what is returned are those of `stm_models.tasks.base.Task.reference_metrics`.

    Raises
    ------
    InputError
        See `read_reference`; also when positions were found outside a map that does not say how large it is, or none
        is known in the measured rows.
    """
    path = reference.path
    known = read_reference(reference, answer["pixel_nm"], answer["step"])
    found = positions(answer)
    _check_inside(found, known.shape, path)
    low, high = _shared_rows(about.get("rows"), known.rows)
    step = np.array(answer["step"])
    found, true = ((one - [low, 0] + 0.5) / step - 0.5 for one in (found, known.positions))
    counted = _counted(found, true, (high - low) / step[0])
    if not counted[1].any():
        raise InputError(
            f"{path}: none of its {len(true)} positions lies in the rows from {low:g} to {high:g}, which were "
            "measured: expected a reference of the same place"
        )
    notes = [
        f"{np.count_nonzero(~kept)} of {len(kept)} {what} positions lie outside the rows from {low:g} to {high:g}, "
        "which were measured, and do not count."
        for what, kept in zip(("found", "known"), counted, strict=True)
        if not kept.all()
    ]
    found, true = found[counted[0]], true[counted[1]]
    frame = np.ceil(np.concatenate([true, found, np.ones((1, 2))]).max(axis=0)).astype(int) + 1
    if np.isfinite(high):
        frame[0] = max(round((high - low) / step[0]), 1)
    if known.shape is not None:
        frame[1] = round(known.shape[1] / step[1])
    result = scores([found], [true], (int(frame[0]), int(frame[1])))
    named = {f"reference_{name}": value for name, value in result.items()} | {"reference_known": float(len(true))}
    return named, (*known.notes, *_sizes(known.size_nm, about.get("size_nm"), path), *notes)


def _sizes(own: Sequence[float] | None, measured: Sequence[float] | None, path: Path) -> tuple[str, ...]:
    if own is None or measured is None or np.allclose(own, measured, rtol=CLOSE_PIXELS, atol=0):
        return ()
    fields = [" x ".join(f"{side:.3g}" for side in size) for size in (own, measured)]
    return (
        f"{path.name} is a field of {fields[0]} nm, the measured one of {fields[1]} nm (height x width): positions "
        "count from the corners of both, are these the same place?",
    )


def _check_inside(found: Floats, shape: tuple[int, int] | None, path: Path) -> None:
    if shape is None or not len(found) or np.all(found.max(axis=0) <= np.array(shape) - 0.5):
        return
    y, x = found.max(axis=0)
    raise InputError(
        f"{path} is a field of {shape[0]} x {shape[1]} of the measured file's pixels (height x width), but "
        f"impurities were found up to y = {y:.0f} and x = {x:.0f}: expected a map of the same place; "
        "save it with its size"
    )


def _shared_rows(*ranges: Sequence[float] | None) -> tuple[float, float]:
    """Edges of the rows that all known ranges have in common."""
    known = [one for one in ranges if one is not None]
    return max([0.0, *(float(low) for low, _ in known)]), min([math.inf, *(float(high) for _, high in known)])


def _counted(found: Floats, true: Floats, height: float) -> list[NDArray[np.bool_]]:
    """Tell which found and which true positions lie in the ``height`` first rows, or make a pair with one that does."""
    pairs = match(found, true, TOLERANCE)
    result = [(one[:, 0] >= -0.5) & (one[:, 0] <= height - 0.5) for one in (found, true)]
    either = result[0][pairs.found] | result[1][pairs.truth]
    result[0][pairs.found], result[1][pairs.truth] = either, either
    return result


def read_reference(reference: Reference, pixel_nm: list[float], step: Sequence[float] = (1.0, 1.0)) -> Known:
    """Read known positions, and where the file tells it the field that they are of.

    Parameters
    ----------
    reference : Reference
        A table (.csv, .txt, .tsv) with columns x_px and y_px, or x_nm and y_nm, or x and y in pixels; any other
        readable file is a bound-state map, to whose recorded rows a Gaussian mixture is fitted. With a bias the map
        nearest to it is taken from a stack.
    pixel_nm : (height, width)
        Of the pixels that positions are given in. A map that says its size may have others; one without has these.
    step : (height, width)
        So many of these pixels are one of the model's, to which a map is interpolated before it is fitted.

    Raises
    ------
    InputError
        For a file that cannot be read, without such columns, without a position, a map without states, or several
        maps of which none is chosen.
    """
    path, bias = reference.path, reference.bias
    if path.suffix.lower() in _TABLES:
        if bias is not None:
            raise InputError(f"--reference-bias is {bias:g}, but {path} is a table of positions: leave it out")
        return Known(_table(path, pixel_nm))
    raw = _map(reference)
    if raw.points is not None or min(raw.values.shape[1:]) < 2:
        raise InputError(f"{path} is no map on a grid of pixels: expected the map at the band bottom, or a table")
    if len(raw.values) != 1:
        choose = "" if raw.bias is None else "choose it with --reference-bias V, or "
        raise InputError(
            f"{path} holds {len(raw.values)} maps: expected the one map at the band bottom; {choose}save it by itself"
        )
    height, width = raw.values.shape[1:]
    own = np.array(pixel_nm) if raw.size_nm is None else np.array(raw.size_nm) / (height, width)
    wanted = math.sqrt(math.prod(pixel_nm) * math.prod(step))
    rows, notes = _recorded(raw.values)
    maps, shrunk = to_pixels(raw.values[:, rows], (float(own[0]), float(own[1])), wanted, str(path))
    ratio = own / pixel_nm  # pixels of the answer in one of the file
    below, above = raw.unrecorded
    field = np.maximum(np.rint(ratio * (below + height + above, width)), 1)
    first, end = below + rows.start, below + rows.stop
    with _advice_for(reference):
        places = reference_positions(maps[0]).positions
    found = ((places + 0.5) * shrunk + [first, 0]) * ratio - 0.5
    edges = (float(first * ratio[0]), float(end * ratio[0]))
    size = (float(own[0] * (below + height + above)), float(own[1] * width))
    return Known(found, (int(field[0]), int(field[1])), edges, size, tuple(f"{path.name}: {note}" for note in notes))


def _map(reference: Reference) -> RawMap:
    from stm_models.data.readers import read

    known = reference.read_as or {}
    channel = known.get("channel")
    if reference.bias is not None and isinstance(channel, int):
        channel = None  # a map by its number; this one is chosen by its bias
    with _advice_for(reference):
        return read(reference.path, bias=reference.bias, size_nm=known.get("size_nm"), channel=channel)


@contextmanager
def _advice_for(reference: Reference) -> Iterator[None]:
    """Say of another file than the measured one that the advice of what reads it cannot be followed."""
    try:
        yield
    except InputError as error:
        if reference.read_as is not None:
            raise
        raise InputError(
            f"{error}; of a reference in a file of its own no option but --reference-bias chooses anything: save the "
            "map at the band bottom by itself, e.g. as an .npz file with data and size_nm"
        ) from error


def _recorded(values: NDArray[Any]) -> tuple[slice, tuple[str, ...]]:
    try:
        return finished_rows(values)
    except InputError:  # zeros between others are no rows that were not reached: a picture's black is zero
        return slice(0, values.shape[1]), ()


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
