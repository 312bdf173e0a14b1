"""Turn a run's model into one ONNX file and register it as the challenger.

The file holds normalisation, network, distance to the training data and maps that explain an answer; it is written
only if it agrees with the torch model.

Example: stm export RUN_ID --out model.onnx --set export.explanations=all
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deploy.exporting.config import ExportConfig
from pipelines import settings
from pipelines.addresses import run_of
from pipelines.promoting.publishing import model_name, publish
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("run", help="id of a training run, runs:/ID, or a version models:/… whose run is meant")
    parser.add_argument("--out", required=True, metavar="MODEL.onnx")
    parser.add_argument("--triton", metavar="DIR", help="also write a model repository for Triton Inference Server")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"),
        help="fp16 or int8: a smaller file without maps, if its errors stay within export.budget",
    )  # fmt: skip
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="export.KEY=VALUE",
        help="explanations (NAME,NAME, all, cheap or none), ig_steps, eg_draws, background, seed, budget.TARGET",
    )  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export."""
    config = _config(args)
    store = connect()
    run_id = run_of(store, args.run)
    row = runs.get(store, run_id)
    if "network" not in row.tags or "task" not in row.tags:
        raise InputError(f"run {run_id} ({row.name}) has no model: give the id of a finished training")
    task = get(row.tags["task"])
    report, version = publish(store, task, run_id, Path(args.out), config)
    triton: list[Path] = []
    if args.triton:
        from deploy.exporting.triton import write_repository  # onnx takes a while to import

        triton = write_repository(report.path, Path(args.triton), model_name(task))
    return {
        "onnx": str(report.path), "sha256": report.sha256, "opset": report.opset, "bytes": report.size_bytes,
        "parity": report.parity, "model": model_name(task), "version": version, "seconds": report.seconds,
        "triton": [str(path) for path in triton],
        "explanations": report.explanations, "refused": report.refused, "precision": report.precision,
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Say what was written."""
    worst = max(value for name, value in result["parity"].items() if name not in ("kinks", "rounding"))
    lines = [f"explanations: {', '.join(result['explanations']) or 'none'}"]
    lines += [f"  no {name}: {reason}" for name, reason in result["refused"].items()]
    for target, error in result["precision"].get("error", {}).items():
        limit = result["precision"]["budget"][target]
        line = f"{result['precision']['kind']}: {target} up to {error:.3g} off, budget {limit:.3g}"
        ends = result["precision"].get("ends", {}).get(target)
        lines.append(line if ends is None else f"{line}; ends of its interval up to {ends:.3g}")
    if "novelty" in result["precision"]:
        lines.append(f"  p-value of novelty up to {result['precision']['novelty']:.3g} off")
    for kind, times in result["precision"].get("seconds", {}).items():
        lines.append(f"  {kind}: " + ", ".join(f"batch {batch} {1e3 * t:.3g} ms" for batch, t in times.items()))
    agrees = f"agrees with torch to {worst:.1e} (relative)"
    if (kind := result["precision"]["kind"]) != "fp32":
        agrees = f"made of a full graph that {agrees}; what {kind} costs is below"
    return (
        f"{result['onnx']}: {result['bytes'] / 1e6:.1f} MB, opset {result['opset']}, {agrees}\n"
        f"registered as {result['model']} version {result['version']}, alias challenger\n"
        + "\n".join(lines)
        + "".join(f"\nTriton: {path}" for path in result["triton"])
    )


def _config(args: argparse.Namespace) -> ExportConfig:
    given = settings.only_section("export", args.assignments)
    if args.precision is not None:
        if given.get("precision", args.precision) != args.precision:
            raise InputError(
                f"--precision is {args.precision} and export.precision {given['precision']}: give one of them"
            )
        given["precision"] = args.precision
    return validate(ExportConfig, given, "export")
