"""Score a model on a data set and keep a panel of samples with their predictions and maps.

Example: stm evaluate models:/stm-hubbard@champion --data fresh.zarr
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deploy.serving.session import Session
from pipelines.addresses import MODEL, local_file
from pipelines.asking import predict_all
from pipelines.questions import check_fits
from stm_models import figures
from stm_models.data import panel
from stm_models.data.dataset import load
from stm_models.training.metrics import metrics
from tracking import datasets, runs
from tracking.store import Store, connect

__all__ = ["arguments", "describe", "evaluate", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--data", required=True, metavar="DATA.zarr")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate."""
    return evaluate(connect(), local_file(args.model), args.data)


def evaluate(store: Store, onnx: Path, data: str | Path) -> dict[str, Any]:
    """Score the file ``onnx`` on every converged sample of ``data``, recorded as a run of its own.

    Raises
    ------
    InputError
        When the data set cannot be read, was altered, or does not fit the model.
    """
    session, samples = Session(onnx), load(data, verify=True)
    about = session.metadata
    check_fits(samples, about, data)
    outputs = predict_all(session, samples.images, ("prediction", "distance"))
    prediction = outputs["prediction"].astype(float)
    scores = metrics(prediction, samples.targets, [target.name for target in about.targets])
    usual = about.distance.quantiles["0.99"]
    scores["outside"] = float(np.mean(outputs["distance"] > usual))
    trained_on = samples.attributes["digest"] == about.data["digest"]

    chosen = panel.choose(samples, np.arange(len(samples)))
    maps = predict_all(session, samples.images[chosen], ("prediction", "distance", *about.explanations))
    target = about.targets[0]
    words = {"label": target.name, "unit": target.unit}
    shown = {"evaluated": (samples.targets[:, 0], prediction[:, 0])}
    with runs.start(
        store, about.task, "evaluate", tags={"evaluated.run": about.run_id, "model.sha256": about.sha256}
    ) as record:
        datasets.log(record, {**samples.attributes, "samples": len(samples)}, samples.path, "evaluation")
        record.config({"task": about.task, "data": str(samples.path), "model": about.sha256})
        record.environment()
        record.tags({"trained_on_this_data": trained_on})
        record.metrics(scores)
        record.figure(figures.parity(shown, **words), "figures/parity.png")
        record.figure(figures.residuals(shown, **words), "figures/residuals.png")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "panel.npz"
            panel.save(path, samples, chosen, maps)
            record.artifact(path)
        run_id = record.id
    return {
        "run_id": run_id, "data": str(samples.path), "digest": samples.attributes["digest"],
        "samples": len(samples), "trained_on": trained_on, "metrics": scores,
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """List the scores."""
    lines = [f"{result['samples']} samples of {result['data']}, run {result['run_id']}"]
    lines += [f"  {name:<10}{value:.4g}" for name, value in result["metrics"].items()]
    if result["trained_on"]:
        lines.append("  warning: the model was trained on this data set; these numbers say little")
    return "\n".join(lines)
