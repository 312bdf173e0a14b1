"""Turn a run's model into one ONNX file and register it as the challenger.

The file holds normalisation, network, gradient and distance to the training data; it is written only if it
agrees with the torch model.

Example: stm export RUN_ID --out model.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipelines.publishing import model_name, publish
from stm_models.errors import InputError
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("run", help="id of a training run, or runs:/ID")
    parser.add_argument("--out", required=True, metavar="MODEL.onnx")
    parser.add_argument("--triton", metavar="DIR", help="also write a model repository for Triton Inference Server")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export."""
    store = connect()
    run_id = args.run.removeprefix("runs:/")
    row = runs.get(store, run_id)
    if "network" not in row.tags or "task" not in row.tags:
        raise InputError(f"run {run_id} ({row.name}) has no model: give the id of a finished training")
    task = get(row.tags["task"])
    report, version = publish(store, task, run_id, Path(args.out))
    triton: list[Path] = []
    if args.triton:
        from deploy.exporting.triton import write_repository  # onnx takes a while to import

        triton = write_repository(report.path, Path(args.triton), model_name(task))
    return {
        "onnx": str(report.path), "sha256": report.sha256, "opset": report.opset, "bytes": report.size_bytes,
        "parity": report.parity, "model": model_name(task), "version": version, "seconds": report.seconds,
        "triton": [str(path) for path in triton],
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Say what was written."""
    worst = max(value for name, value in result["parity"].items() if name != "kinks")
    return (
        f"{result['onnx']}: {result['bytes'] / 1e6:.1f} MB, opset {result['opset']}, "
        f"agrees with torch to {worst:.1e} (relative)\n"
        f"registered as {result['model']} version {result['version']}, alias challenger"
        + "".join(f"\nTriton: {path}" for path in result["triton"])
    )
