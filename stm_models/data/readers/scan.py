"""Nanonis scans (``.sxm``): one image per signal and scan direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stm_models.data.arrays import limit
from stm_models.data.readers.headers import check_size, field_size, numbers, read_header, sections, settings
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import choose
from stm_models.errors import InputError

__all__ = ["read"]

_END = b":SCANIT_END:"
_DATA = b"\x1a\x04"
_TYPES = {("FLOAT", "MSBFIRST"): ">f4", ("FLOAT", "LSBFIRST"): "<f4"}


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read one signal of a scan: (1, y, x), the first row the lowest in y, the first column the lowest in x.

    Lines that were never scanned (NaN) are left out, and a note says so; ``unrecorded`` counts them.

    Raises
    ------
    InputError
        When the header is damaged, the file's size is not what the header announces, nothing was recorded, or
        there is no such signal.
    """
    name = path.name
    if wanted.key is not None:
        raise InputError(f"{name} holds signals, got key {wanted.key!r}; choose one with --channel NAME")
    text, end = read_header(path, _END)
    header = sections(text)
    columns, rows = (int(value) for value in numbers(header, "SCAN_PIXELS", 2, name, whole=True))
    width, height = numbers(header, "SCAN_RANGE", 2, name)
    (angle,) = numbers(header, "SCAN_ANGLE", 1, name) if "SCAN_ANGLE" in header else (0.0,)
    stored = tuple(header.get("SCANIT_TYPE", "").split())
    direction = header.get("SCAN_DIR", "").strip()
    if stored not in _TYPES or direction not in ("up", "down"):
        raise InputError(
            f"{name}: its header says SCANIT_TYPE {' '.join(stored)[:40]!r} and SCAN_DIR {direction[:20]!r}; expected "
            "FLOAT MSBFIRST or FLOAT LSBFIRST, and up or down"
        )
    images = _images(header.get("DATA_INFO", ""), name)
    with path.open("rb") as file:
        file.seek(end)
        gap = file.read(64).find(_DATA)
    if gap < 0:
        raise InputError(f"{name} is cut short: the mark of its data is missing after the header")
    start = end + gap + len(_DATA)
    what = f"{len(images)} images of {rows} x {columns} pixels"
    check_size(path, start + 4 * rows * columns * len(images), what)
    limit(8 * rows * columns, name)
    choice = choose(images, wanted.channel, name, sweeps=False)
    offset = start + 4 * rows * columns * choice.index
    values = np.array(np.memmap(path, _TYPES[stored], "r", offset, (rows, columns)), np.float64)

    recorded = np.flatnonzero(np.isfinite(values).all(axis=1) & (values != 0).any(axis=1))
    if not len(recorded):
        raise InputError(f"{name}[{choice.name}]: no line was recorded to its end: all are zeros, NaN or infinite")
    kept = int(recorded[-1]) + 1
    notes = []
    if kept < rows:
        notes.append(f"The scan is unfinished: {kept} of {rows} lines were recorded, the others are left out.")
    if choice.reason.startswith("no lock-in"):
        notes.append(f"The map is {choice.name}, no dI/dV: the file has no lock-in signal that means dI/dV.")
    done = [f"scanned {direction}"]
    values = values[:kept]
    if direction == "down":
        values = values[::-1]
        done.append("rows turned over")
    if "[bwd]" in choice.name:
        values = values[:, ::-1]
        done.append("backward lines turned over")
    many = any(key.casefold().startswith("multipass") for key in header)
    if many:
        notes.append("The scan has several passes: the bias of each is not read.")
    known = _controller(header.get("Z-CONTROLLER", "")) | settings(header)
    bias = known.get("bias_V")
    return Measurement(
        values[None],
        field_size(height * kept / rows, width, name),
        np.array([bias]) if isinstance(bias, float) and np.isfinite(bias) and not many else None,
        f"{name}[{choice.name}]",
        kind="Nanonis scan",
        unit=choice.unit,
        channel=choice.name,
        reason=choice.reason,
        channels=tuple(images),
        orientation=f"{', '.join(done)}; the frame is turned by {angle:g} degrees clockwise",
        settings=known,
        notes=tuple(notes),
        unrecorded=(rows - kept, 0) if direction == "down" else (0, rows - kept),
    )


def _images(table: str, source: str) -> list[str]:
    """Name every stored image in order, ``Z (m)`` and ``Z [bwd] (m)``."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split("\t")
        fields = fields[1:] if fields and not fields[0].strip() else fields
        if len(fields) < 4:
            continue
        _, name, unit, direction = (part.strip() for part in fields[:4])
        if direction not in ("both", "forward", "backward"):
            raise InputError(f"{source}: its table of channels says direction {direction[:20]!r}; is it damaged?")
        found += [f"{name} ({unit})"] * (direction != "backward")
        found += [f"{name} [bwd] ({unit})"] * (direction != "forward")
    if not found:
        raise InputError(f"{source}: its header lists no channel; is it damaged?")
    return found


def _controller(table: str) -> dict[str, str]:
    """Read the controller's set-point from the table of old headers."""
    lines = [line.strip().split("\t") for line in table.splitlines() if line.strip()]
    if len(lines) < 2 or len(lines[0]) != len(lines[1]):
        return {}
    row = dict(zip(lines[0], lines[1], strict=True))
    return {
        ours: row[theirs][:80]
        for ours, theirs in (("controller", "Name"), ("setpoint", "Setpoint"))
        if row.get(theirs, "")
    }
