"""Draw what the network of a run makes of samples, and log it with the run."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipelines.addresses import run_of
from pipelines.inspecting import inspection_report
from pipelines.inspecting.representation import Trained, look, shown, trained
from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.tasks.perturbation import find
from tracking import runs
from tracking.store import Store, connect

__all__ = ["run"]

_TABLE = "representation.csv"


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Inspect the run that ``args.input`` names: its id, ``runs:/ID`` or the address of a registered model."""
    if args.perturbation_seed < 0:
        raise InputError(f"--perturbation-seed is {args.perturbation_seed}: expected 0 or above")
    store = connect()
    model = trained(store, run_of(store, args.input))
    perturbation = None
    if args.perturbation is not None:
        perturbation = find(model.task.perturbations(), args.perturbation)
    colours = [name.strip() for name in args.colours.split(",")] if args.colours else []
    samples, kinds = shown(model, args.data)
    found, table = look(model, samples, kinds, perturbation=perturbation, seed=args.perturbation_seed, colours=colours)
    out = Path(args.out)
    result = inspection_report.write(found, out) | {"table": str((out / _TABLE).absolute()), "run_id": model.run_id}
    _write_table(table, out / _TABLE)
    _record(store, model, found.report, result)
    return result


def _write_table(table: dict[str, NDArray[Any]], path: Path) -> None:
    with atomic_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(values.tolist() for values in table.values()), strict=True))


def _record(store: Store, model: Trained, report: dict[str, Any], result: dict[str, Any]) -> None:
    """Add files and numbers to the run; those of another data set or of a perturbation under a name of their own."""
    about = ["representation"]
    about += [] if report["digest"] == model.data.digest else [report["digest"][:12]]
    about += [] if report["perturbation"] is None else [report["perturbation"]["name"]]
    record = runs.existing(store, model.run_id)
    for path in (*result["pictures"].values(), result["table"], result["report"]):
        record.artifact(path, "/".join(about))
    record.metrics({".".join([*about, name]): value for name, value in result["metrics"].items()})
