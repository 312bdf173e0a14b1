"""Draw what is in a data set, or in one measured file: pictures, one contact sheet, and the numbers behind them.

Example: stm inspect quick.zarr --out inspection
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pipelines import inspection
from pipelines.inspection import Inspection
from pipelines.questions import parse_size
from stm_models.data.opened import OpenDataSet
from stm_models.errors import InputError
from stm_models.figures import png
from stm_models.files import output_directory, write_json
from tracking import datasets, runs
from tracking.backend import MlflowException
from tracking.store import connect, first_line

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("input", help="a data set (DATA.zarr), or a measured file (.npy .npz .mat .dat .txt)")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--key", help="array to take from a .mat or .npz file with several")
    parser.add_argument("--bias", type=float, help="V: only the map nearest to it")
    parser.add_argument("--size-nm", help="HEIGHTxWIDTH of the map, where the file does not say")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Inspect."""
    path, out = Path(args.input), Path(args.out)
    if path.is_dir() or path.suffix == ".zarr":
        for option, value in (("--key", args.key), ("--bias", args.bias), ("--size-nm", args.size_nm)):
            if value is not None:
                raise InputError(
                    f"{option} is {value}, but {path} is a data set: {option} is for single files, leave it out"
                )
        if out.resolve().is_relative_to(path.resolve()):
            raise InputError(f"--out {out} lies inside the data set {path}: give another folder")
        data = OpenDataSet(path)
        found = inspection.of_data_set(data)
        result = _write(found, out)
        return result | {"run_id": _record(data, found, result)}
    size = None if args.size_nm is None else parse_size(args.size_nm)
    return _write(inspection.of_file(path, args.key, size, args.bias), out) | {"run_id": None}


def _write(found: Inspection, out: Path) -> dict[str, Any]:
    output_directory(out)
    pictures = {name: png.save(figure, out / f"{name}.png") for name, figure in found.figures.items()}
    sheet = png.contact_sheet(list(found.figures.values()), out / "contact_sheet.png")
    names = {name: path.name for name, path in pictures.items()}
    write_json(out / "inspect.json", {**found.report, "pictures": names})
    return {
        "input": found.report.get("data") or found.report["file"], "kind": found.report["kind"],
        "contact_sheet": str(sheet.absolute()), "report": str((out / "inspect.json").absolute()),
        "pictures": {name: str(path.absolute()) for name, path in pictures.items()},
        "skipped": found.report.get("skipped", {}), "unknown": found.report.get("unknown", []),
        "metrics": found.metrics, "summary": _summary(found.report),
    }  # fmt: skip


def _record(data: OpenDataSet, found: Inspection, result: dict[str, Any]) -> str | None:
    """Log what was written as a run of the task's experiment; without a store the files are enough."""
    try:
        with runs.start(connect(), found.report["task"], "inspect") as record:
            datasets.log(record, {**data.attributes, "samples": len(data)}, data.path, "inspection")
            record.config({"task": found.report["task"], "data": result["input"]})
            record.environment()
            record.metrics(found.metrics)
            for path in (*result["pictures"].values(), result["contact_sheet"]):
                record.artifact(path, "figures")
            record.artifact(result["report"])
            return record.id
    except (InputError, OSError, MlflowException) as error:
        print(f"warning: the inspection is not recorded: {first_line(error)}", file=sys.stderr)
        return None


def describe(result: dict[str, Any]) -> str:
    """Say what was found and where the pictures are."""
    lines = [f"{result['input']}: {result['summary']}"]
    lines += [f"  {name:<24}{value:.6g}" for name, value in result["metrics"].items()]
    lines += [f"  not drawn: {name}: {why}" for name, why in result["skipped"].items()]
    lines += [f"  unknown: {what}" for what in result["unknown"]]
    return "\n".join([*lines, f"contact sheet {result['contact_sheet']}"])


def _summary(report: dict[str, Any]) -> str:
    if report["kind"] == "data set":
        bad = report["unconverged_samples"]
        flagged = f", {bad} of states that did not converge left out" if bad else ""
        return (
            f"{report['samples']} samples in {report['groups']} groups{flagged}; "
            f"{report['images_used']} images looked at"
        )
    size = report["size_nm"]
    pixels = report["pixels"]
    what = f"{report['points']} points" if pixels is None else f"{pixels['height']} x {pixels['width']} pixels"
    extent = "of unknown size" if size is None else f"on {size['height']:.4g} x {size['width']:.4g} nm"
    return f"{report['channels']} channels of {what} {extent}"
