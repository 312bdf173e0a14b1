"""Write a data set as files that other people's code reads: text `x y value` or PNG pictures, the label in the name.

Example: stm convert DATA.zarr --to ldos --out FOLDER
         stm convert DATA.zarr --to images --out FOLDER --size 256
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipelines.import_data import choose, given, watch
from pipelines.lease import whole_folder
from stm_models.config import validate
from stm_models.data.digest import StoredDigests
from stm_models.data.opened import OpenDataSet
from stm_models.data.store import READ_ERRORS, open_root
from stm_models.errors import InputError
from stm_models.files import output_directory
from stm_models.tasks.conventions import Exporter

__all__ = ["arguments", "convert", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("data", metavar="DATA.zarr")
    parser.add_argument("--to", required=True, metavar="CONVENTION", help="ldos (text x y value) or images (PNG)")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--size", type=int, help="images: pixels along each side (default: the data's)")
    parser.add_argument("--channel", type=int, help="which energy of a data set with several (default: the first)")
    parser.add_argument("--include-unconverged", action="store_true", help="write flagged states too")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Convert."""
    data = OpenDataSet(args.data)
    _, convention = choose(data.attributes["task"], args.to)
    options = validate(convention.export_options, given(args, ("size", "channel")), f"convert --to {args.to}")
    exporter = convention.exporter(data.attributes, data.arrays, options)
    return convert(data, exporter, Path(args.out), include_unconverged=args.include_unconverged)


def describe(result: dict[str, Any]) -> str:
    """Say what was written."""
    left = f", {result['left_out']} of states that did not converge are left out" if result["left_out"] else ""
    return f"{result['out']}: {result['files']} files and manifest.csv{left}, {result['seconds']:.1f} s"


def convert(data: OpenDataSet, exporter: Exporter, out: Path, *, include_unconverged: bool = False) -> dict[str, Any]:
    """Write one file per sample and ``manifest.csv`` into ``out``; whatever happens, ``out`` is whole or untouched.

    Samples are read group by group, each checked against its digest.

    Raises
    ------
    InputError
        When ``out`` holds something or another process is writing it, or the data set is damaged.
    """
    start = time.monotonic()
    out = out.absolute()
    output_directory(out.parent)
    with whole_folder(out, "converting") as part:
        written = _write(part, data, exporter, include_unconverged)
    return {
        "out": str(out),
        "files": written,
        "left_out": len(data) - written,
        "seconds": round(time.monotonic() - start, 3),
    }


class _Table:
    """A CSV file whose columns are those of its first row."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer: csv.DictWriter[str] | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row))
            self._writer.writeheader()
        self._writer.writerow(row)


def _write(folder: Path, data: OpenDataSet, exporter: Exporter, include_unconverged: bool) -> int:
    """Write the files and their table; return how many files."""
    identity = {key: data.attributes[key] for key in ("recipe", "digest")}
    written: set[str] = set()
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = _Table(file)
        for sample in _samples(data, exporter, include_unconverged):
            name, content = exporter.file(sample)
            if name in written:
                raise RuntimeError(f"two samples have the name {name}")
            written.add(name)
            (folder / name).write_bytes(content)
            table.add({"file": name, **exporter.facts(sample), "sample": sample["sample"], **identity})
    return len(written)


def _samples(data: OpenDataSet, exporter: Exporter, include_unconverged: bool) -> Iterator[dict[str, Any]]:
    stored = StoredDigests(open_root(data.path))
    per_group = int(data.attributes["samples_per_group"])
    if not include_unconverged and not data.coordinates["converged"].any():
        raise InputError(f"no state of {data.path} converged: give --include-unconverged to write them all the same")
    draws: dict[int, int] = {}
    for index in watch(range(len(data) // per_group), "convert"):
        rows = np.arange(index * per_group, (index + 1) * per_group)
        try:
            whole = stored.agrees(index)
        except READ_ERRORS:
            whole = False
        if not whole:
            raise InputError(f"{data.path} is damaged in sample {rows[0]}: delete it and make it again")
        arrays = {name: data.read(name, rows) for name in exporter.arrays}
        for place, row in enumerate(rows):
            sample: dict[str, Any] = {**data.row(row), "sample": int(row)}
            sample["draw"] = draws.get(int(sample["group"]), 0)
            draws[int(sample["group"])] = sample["draw"] + 1
            if sample["converged"] or include_unconverged:
                yield sample | {name: values[place] for name, values in arrays.items()}
