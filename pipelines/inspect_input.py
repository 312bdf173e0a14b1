"""Draw what is in a data set, in one measured file, or in the features of a run's network.

There are pictures, one contact sheet, and the numbers behind them; those of a run are logged with it too.

Example: stm inspect quick.zarr --out inspection
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from deploy.model.questions import parse_channel, parse_size
from pipelines.inspecting import inspection
from pipelines.inspecting.inspection import Inspection
from pipelines.inspecting.inspection_report import describe, write
from stm_models.data.opened import OpenDataSet
from stm_models.data.readers import READABLE
from stm_models.errors import InputError
from tracking import datasets, runs
from tracking.backend import MlflowException
from tracking.store import connect, first_line

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "input",
        help=f"a data set (DATA.zarr), a measured file ({' '.join(READABLE)}), or a training run (an id, models:/…)",
    )
    parser.add_argument("--out", required=True, metavar="DIR")
    one = parser.add_argument_group("a measured file")
    one.add_argument("--key", help="array to take from a .mat or .npz file with several")
    one.add_argument("--bias", type=float, help="V: only the map nearest to it")
    one.add_argument(
        "--channel", type=parse_channel, metavar="NAME|N",
        help="signal of an instrument file, or number of the map in a stack, from 0",
    )  # fmt: skip
    one.add_argument("--size-nm", help="HEIGHTxWIDTH of the map, where the file does not say")
    model = parser.add_argument_group("a run")
    model.add_argument(
        "--data", metavar="DATA.zarr", help="samples to show (default: the run's own that it did not fit)"
    )
    model.add_argument("--perturbation", metavar="NAME", help="show them also as this set of the task has them")
    model.add_argument("--perturbation-seed", type=int, default=0, metavar="N", help="decides its random numbers")
    model.add_argument("--colours", metavar="NAME[,NAME]", help="coordinates of the data set to colour by")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Inspect."""
    path, out = Path(args.input), Path(args.out)
    of_file = {"--key": args.key, "--bias": args.bias, "--channel": args.channel, "--size-nm": args.size_nm}
    of_run = {"--data": args.data, "--perturbation": args.perturbation, "--colours": args.colours}
    if _is_run(args.input):
        _refuse(of_file, args.input, "a run", "single files")
        from pipelines import inspect_run  # the only kind of input that needs torch

        return inspect_run.run(args)
    if path.is_dir() or path.suffix == ".zarr":
        _refuse(of_file, path, "a data set", "single files")
        _refuse(of_run, path, "a data set", "runs")
        if out.resolve().is_relative_to(path.resolve()):
            raise InputError(f"--out {out} lies inside the data set {path}: give another folder")
        data = OpenDataSet(path)
        found = inspection.of_data_set(data)
        result = write(found, out)
        return result | {"run_id": _record(data, found, result)}
    _refuse(of_run, path, "a measured file", "runs")
    size = None if args.size_nm is None else parse_size(args.size_nm)
    return write(inspection.of_file(path, args.key, size, args.bias, args.channel), out) | {"run_id": None}


def _is_run(name: str) -> bool:
    addressed = re.fullmatch(r"(runs|models):/.*|(spool_)?[0-9a-f]{32}", name)
    return addressed is not None and not Path(name).exists()


def _refuse(options: dict[str, Any], name: str | Path, kind: str, meant: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is {value}, but {name} is {kind}: {option} is for {meant}, leave it out")


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
