"""Logging what plots of a run's predictions are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from stm_models.data import predictions
from stm_models.data.dataset import Samples
from stm_models.tasks.base import Task
from stm_models.unfinished import scratch
from tracking.runs import Run

__all__ = ["log_predictions"]


def log_predictions(
    run: Run, task: Task, sets: Mapping[str, tuple[Samples, NDArray[Any]]], calibration: Mapping[str, Any]
) -> None:
    """Log the predictions of some sets of samples as ``predictions.npz``, where the task's can be plotted."""
    columns = {name: task.points(found, samples, calibration) for name, (samples, found) in sets.items()}
    if not any(columns.values()):
        return
    attributes = next(iter(sets.values()))[0].attributes
    about = {
        "task": task.name, "digest": attributes["digest"],
        "units": {target["name"]: target["unit"] for target in attributes["targets"]},
    }  # fmt: skip
    with scratch() as folder:
        path = folder / predictions.FILE
        predictions.save(path, predictions.Predictions(columns, about))
        run.artifact(path)
