"""The record of explanations in the tracking store: a run of its own, linked to the model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deploy.model.metadata import ModelMetadata
from deploy.model.questions import Reading
from pipelines.explaining.explainers import SHAP
from pipelines.explaining.explanation import ExplainOptions, Source
from tracking import runs
from tracking.store import Store

__all__ = ["record"]


def record(
    store: Store,
    source: Source,
    about: ModelMetadata,
    path: str,
    reading: Reading,
    result: Mapping[str, Any],
    options: ExplainOptions,
) -> str:
    """Log files, scores and settings as a run ``explain``; pictures of shap with the model's run too.

    Parameters
    ----------
    store : Store
        Where the new run goes.
    source : Source
        Its run is the model's, in the same store.
    about : ModelMetadata
        What the model file says of itself.
    path : str
        What was explained: a file or a data set.
    reading : Reading
        How it was read.
    result : mapping
        What `explain` or `explain_data_set` returned.
    options : ExplainOptions
        Of that call.

    Returns
    -------
    str
        Id of the new run. Its tag ``explained.run`` names the model's.
    """
    tags = {"explained.run": source.run_id, "model.sha256": about.sha256}
    with runs.start(store, about.task, "explain", tags=tags) as made:
        read = {name: value for name, value in asdict(reading).items() if value is not None}
        made.config({"task": about.task, "input": path, "model": about.sha256, "reading": read, **asdict(options)})
        made.environment({"explain": options.seed})
        for method, scores in result.get("scores", {}).items():
            made.metrics({f"{method}.{name}": value for name, value in scores.items()})
        for method, found in result.get("randomisation", {}).items():
            made.metrics({f"{method}.randomised": found["final"]})
        for method, found in result.get("record", {}).get("methods", {}).items():
            slopes = found.get("slope", {})
            made.metrics({f"{method}.slope.{region}": slope["value"] for region, slope in slopes.items()})
        for file in result["files"]:
            made.artifact(file, "explanations")
        run_id = made.id
    names = [method.replace(":", "_") for method in result["methods"] if method in SHAP]
    pictures = [file for file in result["files"] if file.endswith(tuple(f"_{name}.png" for name in names))]
    if names and source.run_id is not None:
        trained = runs.existing(store, source.run_id)
        for file in pictures:
            trained.artifact(file, "explanations")
    return run_id
