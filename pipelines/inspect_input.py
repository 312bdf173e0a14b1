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
from pipelines.questions import parse_channel, parse_size
from stm_models.data.opened import OpenDataSet
from stm_models.data.readers import READABLE
from stm_models.errors import InputError
from stm_models.figures import png
from stm_models.files import output_directory, write_json
from tracking import datasets, runs
from tracking.backend import MlflowException
from tracking.store import connect, first_line

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("input", help=f"a data set (DATA.zarr), or a measured file ({' '.join(READABLE)})")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--key", help="array to take from a .mat or .npz file with several")
    parser.add_argument("--bias", type=float, help="V: only the map nearest to it")
    parser.add_argument(
        "--channel", type=parse_channel, metavar="NAME|N",
        help="signal of an instrument file, or number of the map in a stack, from 0",
    )  # fmt: skip
    parser.add_argument("--size-nm", help="HEIGHTxWIDTH of the map, where the file does not say")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Inspect."""
    path, out = Path(args.input), Path(args.out)
    if path.is_dir() or path.suffix == ".zarr":
        given = {"--key": args.key, "--bias": args.bias, "--channel": args.channel, "--size-nm": args.size_nm}
        for option, value in given.items():
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
    return _write(inspection.of_file(path, args.key, size, args.bias, args.channel), out) | {"run_id": None}


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
        "facts": _facts(found.report), "notes": found.report.get("notes", []),
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
    lines += [f"  {name:<14}{value}" for name, value in result["facts"].items()]
    lines += [f"  note: {note}" for note in result["notes"]]
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


def _facts(report: dict[str, Any]) -> dict[str, str]:
    """Say what a measured file is, as far as it says so itself."""
    if report["kind"] != "file":
        return {}
    bias, unit = report["bias_V"], report["unit"]
    sweep = "" if bias is None else f"{min(bias):.6g} to {max(bias):.6g} V" if len(bias) > 1 else f"{bias[0]:.6g} V"
    chosen = "" if report["channel"] is None else f"{report['channel']}" + (f" ({unit})" if unit else "")
    facts = {
        "format": report["format"],
        "bias": sweep,
        "channel": f"{chosen}: {report['channel_reason']}" if chosen else "",
        "channels": ", ".join(report["channels_of_file"]),
        "orientation": report["orientation"],
        "settings": ", ".join(f"{name} {_short(value)}" for name, value in report["settings"].items()),
    }
    return {name: value for name, value in facts.items() if value}


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
