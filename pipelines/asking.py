"""Asking a model and putting its answers into words and files: what predict, explain, evaluate and demo share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.session import Session
from pipelines.questions import Question
from stm_models.errors import unknown
from stm_models.files import atomic_path, output_directory, write_json
from stm_models.tasks.registry import get

__all__ = ["MAPS_AT_MOST", "answer", "answer_from", "predict_all", "write_answers"]

_BATCH = 64
MAPS_AT_MOST = 16
"""So many maps of one input are made; a data set may have thousands of rows."""


def predict_all(
    session: Session, images: NDArray[np.float32], outputs: Sequence[str] = ("prediction",)
) -> dict[str, NDArray[np.float32]]:
    """Run a model over many images in batches."""
    parts = [session.run(images[first : first + _BATCH], outputs) for first in range(0, len(images), _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def answer(session: Session, question: Question, explain: str | None = None) -> tuple[list[dict[str, Any]], Any]:
    """Ask the model.

    Returns
    -------
    answers : list of dict
        See `answer_from`.
    maps : (M, C, H, W) float32 or None
        The explanation that was asked for, of the first ``M <= MAPS_AT_MOST`` images.

    Raises
    ------
    InputError
        For an explanation that the model does not have.
    """
    if explain is not None and explain not in session.metadata.explanations:
        raise unknown("explanation of this model", explain, session.metadata.explanations)
    outputs = predict_all(session, question.images, ["prediction", "distance"])
    maps = predict_all(session, question.images[:MAPS_AT_MOST], [explain])[explain] if explain is not None else None
    return answer_from(session, question, outputs), maps


def answer_from(session: Session, question: Question, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put a model's outputs into words.

    Parameters
    ----------
    outputs : mapping of str to array
        ``prediction`` (S, T) and ``distance`` (S,), as the model gives them.

    Returns
    -------
    list of dict
        One JSON-able dict per image::

            {"name": str,                                  # as in question.names
             TARGET: {"value": float, "unit": str}, ...,   # one key per target of the model, e.g. "U"
             "distance": float,                            # to the training data
             "inside": bool, "verdict": str,               # what that distance means, as flag and in words
             "true": {TARGET: float, ...},                 # for data sets only
             "masked": float,                              # for real-space maps only: share of the image, 0 to 1
             "notes": [str, ...]}
    """
    about = session.metadata
    answers: list[dict[str, Any]] = []
    for row, found in enumerate(get(about.task).decode(outputs, about.as_dict())):
        entry: dict[str, Any] = {"name": question.names[row], **found}
        if question.truth is not None:
            entry["true"] = {
                target.name: float(value) for target, value in zip(about.targets, question.truth[row], strict=True)
            }
        if question.known is not None:
            entry["masked"] = float(1 - question.known.mean())
        answers.append({**entry, "notes": list(question.notes)})
    return answers


def write_answers(
    out: Path,
    session: Session,
    question: Question,
    answers: list[dict[str, Any]],
    explain: str | None,
    maps: Any,
) -> list[str]:
    """Write prediction.json, and each map (at most `MAPS_AT_MOST`) as .npy and .png; return the files' paths."""
    out = output_directory(out)
    about = session.metadata
    write_json(
        out / "prediction.json",
        {"model": {"sha256": about.sha256, "run_id": about.run_id, "task": about.task, "data": dict(about.data)},
         "provider": session.provider, "answers": answers},
    )  # fmt: skip
    written = [str((out / "prediction.json").absolute())]
    if maps is None:
        return written
    from stm_models.explain.render import overlay_png

    target = about.targets[about.explained]
    axes = get(about.task).axes(about.as_dict()["input"])
    for row, entry in enumerate(answers[: min(len(maps), MAPS_AT_MOST)]):
        array, picture = (out / f"{entry['name']}_{explain}.{suffix}" for suffix in ("npy", "png"))
        with atomic_path(array) as part, part.open("wb") as file:
            np.save(file, maps[row])
        shown = maps[row, 0] if question.known is None else np.where(question.known, maps[row, 0], np.nan)
        overlay_png(
            picture, question.images[row, 0], shown, extent=axes.extent, labels=axes.labels,
            title=f"{explain} of {target.name} = {entry[target.name]['value']:.3f} {target.unit}",
            unit=f"{target.unit} per {about.input.unit}", image_label=about.input.unit,
        )  # fmt: skip
        written += [str(path.absolute()) for path in (array, picture)]
    return written
