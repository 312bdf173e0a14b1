"""manifest.csv: what file names cannot say, one row per file."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from stm_models.errors import InputError

__all__ = ["NAME", "RECORD", "Row", "read"]

NAME = "manifest.csv"
RECORD = ("sample", "recipe", "digest")
"""Columns that only tell where an exported file came from."""

_LARGEST = 256 * 1024**2


@dataclass(frozen=True)
class Row:
    """One file: label, group and chain as far as they are given, further numbers by column name."""

    U: float | None
    group: str | None
    radius: float | None
    values: dict[str, float] = field(default_factory=dict)
    chain: str | None = None


def read(path: Path) -> dict[str, Row]:
    """Read a manifest: column ``file``, and any of ``U`` (eV), ``group``, ``chain`` (text), ``radius`` (a), numbers.

    Raises
    ------
    InputError
        When it is no such table, names a file twice, or holds something that is no finite number.
    """
    if not path.is_file():
        raise InputError(f"no manifest at {path}: give a CSV file with columns file,U,group")
    if path.stat().st_size > _LARGEST:
        raise InputError(
            f"{path.name} holds {path.stat().st_size / 2**20:.0f} MiB, expected at most 256: split the data"
        )
    rows: dict[str, Row] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, strict=True)
            columns = [str(name).strip() for name in table.fieldnames or []]
            _check_columns(columns, path.name)
            table.fieldnames = columns
            for line in table:
                where = f"{path.name}, line {table.line_num}"
                if None in line or None in line.values():
                    raise InputError(f"{where}: expected {len(columns)} columns ({', '.join(columns)}); mend the line")
                name = line["file"].strip()
                if name in rows:
                    raise InputError(f"{where}: {name} is there twice; keep one row per file")
                rows[name] = _row(line, where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} is no CSV table ({error}); expected columns file,U,group") from error
    return rows


def _check_columns(columns: list[str], name: str) -> None:
    if "file" not in columns:
        raise InputError(f"{name} has columns {', '.join(columns) or 'none'}; expected file,U,group: add a column file")
    if len(set(columns)) < len(columns) or not all(column.isidentifier() for column in columns):
        raise InputError(
            f"{name} has columns {', '.join(columns)}; expected different plain names such as file,U,group"
        )


def _row(line: dict[str, str], where: str) -> Row:
    def number(name: str) -> float | None:
        text = line.get(name, "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{where}: {name} is {text!r}, expected a finite number; mend it or leave the column out")
        return value

    others = [name for name in line if name not in ("file", "group", "chain", "U", "radius", *RECORD)]
    return Row(
        U=number("U"),
        group=line.get("group", "").strip() or None,
        radius=number("radius"),
        values={name: value for name in others if (value := number(name)) is not None},
        chain=line.get("chain", "").strip() or None,
    )
