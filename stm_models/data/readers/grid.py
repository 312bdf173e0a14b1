"""Nanonis grids of spectra (``.3ds``): every signal over bias at every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.arrays import limit
from stm_models.data.readers.headers import check_size, field_size, numbers, pairs, read_header, settings
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import choose, derivative
from stm_models.errors import InputError

__all__ = ["read"]

_END = b":HEADER_END:\r\n"
_HIGHEST = 1000.0  # V, beyond which a sweep is damage


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read one signal of a grid: (bias, y, x), bias ascending in V, rows from the bottom of the frame.

    Rows at the end that the instrument left at zero are left out, and a note says so.

    Raises
    ------
    InputError
        When the header is damaged, the file's size is not what the header announces, another quantity than the
        bias was swept, nothing was recorded, or there is no such signal.
    """
    name = path.name
    if wanted.key is not None:
        raise InputError(f"{name} holds signals, got key {wanted.key!r}; choose one with --channel NAME")
    text, start = read_header(path, _END)
    header = pairs(text, "=")
    columns, rows = (int(value) for value in numbers(header, "Grid dim", 2, name, whole=True))
    (points,) = (int(value) for value in numbers(header, "Points", 1, name, whole=True))
    fixed = _names(header, "Fixed parameters") + _names(header, "Experiment parameters")
    (count,) = (int(value) for value in numbers(header, "# Parameters (4 byte)", 1, name))
    signals = _names(header, "Channels")
    if count != len(fixed) or not signals:
        raise InputError(
            f"{name}: its header lists {len(fixed)} parameters and {len(signals)} channels, but says {count} "
            "parameters; is it damaged?"
        )
    swept = header.get("Sweep Signal", "Bias (V)")
    if not swept.startswith("Bias"):
        raise InputError(f"{name} sweeps {swept[:60]!r}; expected a sweep of Bias (V)")
    what = f"{rows} x {columns} spectra of {len(signals)} channels and {points} points"
    check_size(path, start + rows * columns * 4 * (count + points * len(signals)), what)
    limit(8 * rows * columns * points, name)
    choice = choose(signals, wanted.channel, name)
    data = np.memmap(path, ">f4", "r", start, (rows, columns, count + points * len(signals)))

    bias = _bias(data[0, 0, :count], header, fixed, points, name)
    kept = _finished(data[..., count:], name)
    notes = []
    if choice.derived and wanted.channel is None:
        notes.append(f"{choice.name}: the file has no lock-in signal that means dI/dV.")
    if kept < rows:
        notes.append(f"The grid is unfinished: {kept} of {rows} rows were recorded, the others are left out.")
    run = _monotonic(bias)
    if run < points:
        notes.append(f"The sweep turns round: only its first {run} of {points} bias values are taken.")
    first = count + choice.index * points
    values = np.empty((run, kept, columns), np.float64)
    for row in range(kept):
        spectra = np.asarray(data[row, :, first : first + run], np.float64)
        values[:, row] = (derivative(spectra, bias[:run], name) if choice.derived else spectra).T
    bias = bias[:run]
    if run > 1 and bias[0] > bias[-1]:
        bias, values = bias[::-1], values[::-1]

    *_, width, height, angle = numbers(header, "Grid settings", 5, name)
    return Measurement(
        values,
        field_size(height * kept / rows, width, name),
        bias,
        f"{name}[{choice.name}]",
        kind="Nanonis grid",
        unit=choice.unit,
        channel=choice.name,
        reason=choice.reason,
        channels=tuple(signals),
        orientation=f"as stored, first row at the bottom; the frame is turned by {angle:g} degrees clockwise",
        settings=settings(header),
        notes=tuple(notes),
    )


def _names(header: Mapping[str, str], key: str) -> list[str]:
    return [part.strip() for part in header.get(key, "").split(";") if part.strip()]


def _bias(
    parameters: NDArray[Any], header: Mapping[str, str], names: Sequence[str], points: int, source: str
) -> NDArray[np.float64]:
    """Return the swept values as recorded: of a multi-segment sweep from its table, else between its ends."""
    key = next((key for key in header if key.startswith("Segment Start")), None)
    if header.get("Filetype") == "MLS" or key is not None:
        bias = _segments(header.get(key or "", ""), points, source)
    elif "Sweep Start" in names and "Sweep End" in names:
        first, last = (float(parameters[names.index(name)]) for name in ("Sweep Start", "Sweep End"))
        if not (abs(first) <= _HIGHEST and abs(last) <= _HIGHEST):
            raise InputError(f"{source}: its sweep goes from {first:g} to {last:g}; expected bias values in V")
        bias = np.linspace(first, last, points)
    else:
        (first,) = numbers(header, "Bias Spectroscopy>Sweep Start (V)", 1, source)
        (last,) = numbers(header, "Bias Spectroscopy>Sweep End (V)", 1, source)
        bias = np.linspace(first, last, points)
    if not np.all(np.abs(bias) <= _HIGHEST) or (points > 1 and bias[0] == bias[1]):
        raise InputError(
            f"{source}: its sweep goes from {bias[0]:g} to {bias[-1]:g} in {points} points; expected bias values in V"
        )
    return bias


def _segments(table: str, points: int, source: str) -> NDArray[np.float64]:
    """Join the segments ``start,end,settling,integration,steps;...``; a shared end is one point."""
    try:
        rows = [[float(field) for field in part.split(",")[:5]] for part in table.split(";") if part.strip()]
        # The sum bounds what is allocated; a length that is no number is caught with the rest.
        steps = [int(row[4]) for row in rows]
    except (ValueError, IndexError, OverflowError):
        rows, steps = [], []
    values: list[float] = []
    if rows and min(steps) >= 1 and sum(steps) <= points + len(steps):
        for row, length in zip(rows, steps, strict=True):
            part = np.linspace(row[0], row[1], length).tolist()
            values += part[1:] if values and part[0] == values[-1] else part
    if len(values) != points:
        raise InputError(
            f"{source}: its table of sweep segments is {table[:60]!r}; expected start,end,settling,integration,steps "
            f"of segments with {points} bias values"
        )
    return np.array(values)


def _finished(data: NDArray[Any], source: str) -> int:
    """Count the rows up to the last one in which every pixel holds something else than zeros or NaN."""
    for row in range(len(data) - 1, -1, -1):
        values = np.asarray(data[row])
        if np.any((values != 0) & ~np.isnan(values), axis=-1).all():
            return row + 1
    raise InputError(f"{source}: no row of the grid was recorded to its end: all are zeros or NaN")


def _monotonic(bias: NDArray[np.float64]) -> int:
    """Count the values before the sweep turns round."""
    direction = np.sign(np.diff(bias))
    turned = np.flatnonzero(direction != direction[:1])
    return int(turned[0]) + 1 if len(turned) else len(bias)
