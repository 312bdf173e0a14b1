"""Asking a model and putting its answers into words and files: what predict, explain, evaluate and demo share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.fields import ask_field, explain_places
from deploy.model.questions import Question
from deploy.model.session import Session
from stm_models.errors import unknown
from stm_models.files import atomic_path, output_directory, write_json
from stm_models.tasks.registry import get

__all__ = ["MAPS_AT_MOST", "PLACES_AT_MOST", "answer", "answer_from", "predict_all", "write_answers", "write_maps"]

_BATCH = 64
MAPS_AT_MOST = 16
"""So many maps of one input are made; a data set may have thousands of rows."""
PLACES_AT_MOST = 16
"""So many places of one answered map are explained by themselves, the surest ones."""


def predict_all(
    session: Session, images: NDArray[np.float32], outputs: Sequence[str] = ("prediction",)
) -> dict[str, NDArray[np.float32]]:
    """Run a model over many images: in batches, or those of another size than its own tile by tile."""
    if images.shape[1:] == session.metadata.input.shape:
        parts = [session.run(images[first : first + _BATCH], outputs) for first in range(0, len(images), _BATCH)]
    else:
        parts = [ask_field(session, image, outputs) for image in images]
    return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def answer(
    session: Session, question: Question, explain: str | None = None
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Ask the model; images of another size than its own are taken tile by tile.

    Returns
    -------
    answers : list of dict
        See `answer_from`.
    outputs : dict of str to array
        What the model answers to every image (``prediction``, ``lower``, ``novelty``, ...), and the explanation that
        was asked for, (M, C, H, W), of the
        first ``M <= MAPS_AT_MOST`` images.

    Raises
    ------
    InputError
        For an explanation that the model does not have.
    """
    if explain is not None and explain not in session.metadata.explanations:
        raise unknown("explanation of this model", explain, session.metadata.explanations)
    outputs = predict_all(session, question.images, session.metadata.answers)
    if explain is not None:
        outputs |= predict_all(session, question.images[:MAPS_AT_MOST], [explain])
    answers = answer_from(session, question, outputs)
    if explain is not None:
        for entry in answers[:MAPS_AT_MOST]:
            entry["notes"] += _left_out(session, question, entry, explain)
    return answers, outputs


def answer_from(session: Session, question: Question, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put a model's outputs into words.

    Parameters
    ----------
    outputs : mapping of str to array
        ``prediction`` (S, T) or (S, 1, H, W) and the others of `ModelMetadata.answers`, as the model gives them.

    Returns
    -------
    list of dict
        One JSON-able dict per image::

            {"name": str,                                  # as in question.names
             ...,                                          # the task's: {"U": {"value", "unit", "lower", ...}}
             "novelty": float, "distance": float,          # p-value of the distance to the training data
             "inside": bool, "verdict": str,               # what it means, as flag and in words
             "true": {...},                                # the task's, for data sets only
             "masked": float,                              # for real-space maps only: share of the image, 0 to 1
             "notes": [str, ...]}
    """
    about = session.metadata
    answers: list[dict[str, Any]] = []
    for row, found in enumerate(get(about.task).decode(outputs, about.as_dict(), question.about)):
        entry: dict[str, Any] = {"name": question.names[row], **found}
        if question.truth is not None:
            entry["true"] = question.truth[row]
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
    outputs: Mapping[str, NDArray[Any]],
) -> list[str]:
    """Write prediction.json, what the task adds, and each explanation as .npy and .png; return the files' paths.

    Where the task names places of an answered map, NAME_EXPLAIN_places.npz has the maps of the first `PLACES_AT_MOST`
    as `stm_models.tasks.outputs.PlaceMaps` names them. Tables are written of all answers, maps and pictures of
    the first `MAPS_AT_MOST`.

    Parameters
    ----------
    out : Path
        The folder; it is made where it is not there.
    session : Session
        The model that was asked.
    question : Question
        What it was asked.
    answers : list of dict
        As `answer_from` gives them, one per image.
    explain : str or None
        The model's explanation that was asked for.
    outputs : mapping of str to array
        ``prediction`` (S, T) or (S, 1, H, W), and the maps called ``explain``, (M, C, H, W), of the first M images.

    Returns
    -------
    list of str
        Absolute.

    Raises
    ------
    InputError
        When the folder cannot be written.
    """
    out = output_directory(out)
    about = session.metadata
    task = get(about.task)
    write_json(
        out / "prediction.json",
        {"model": {"sha256": about.sha256, "run_id": about.run_id, "task": about.task, "data": dict(about.data)},
         "provider": session.provider, "answers": answers},
    )  # fmt: skip
    written = [str((out / "prediction.json").absolute())]
    for row, entry in enumerate(answers):
        if row >= MAPS_AT_MOST:
            more = task.answer_files(out, entry, None, None, question.about)
            written += [str(path.absolute()) for path in more]
            continue
        image, places = question.images[row], task.places(entry, question.about)[:PLACES_AT_MOST]
        explained = None
        if explain is not None and len(places) and about.focusable:
            explained = explain_places(session, image, outputs["prediction"][row, 0], places, explain)
            path = out / f"{entry['name']}_{explain}_places.npz"
            values = {key: value for key, value in vars(explained).items() if key != "method"}
            with atomic_path(path) as part, part.open("wb") as file:
                np.savez(file, **values)
            written.append(str(path.absolute()))
        more = task.answer_files(out, entry, image, explained, question.about)
        written += [str(path.absolute()) for path in more]
    if explain is not None:
        written += write_maps(out, session, question, answers, explain, outputs[explain])
    return written


def write_maps(
    out: Path,
    session: Session,
    question: Question,
    answers: list[dict[str, Any]],
    method: str,
    maps: NDArray[Any],
) -> list[str]:
    """Write the maps of the first answers as NAME_METHOD.npy, and as .png on one scale of colours.

    Pictures show a map's sum over its channels, over the image's first channel, and a gap where the image is masked.

    Parameters
    ----------
    out : Path
    session : Session
        The model that was explained: units and axes are its.
    question : Question
    answers : list of dict
        As `answer_from` gives them, one per image.
    method : str
        Fit for a file name.
    maps : (M, C, H, W) or (M, 1, H, W) floating
        As high and wide as the images; `MAPS_AT_MOST` of them are written.

    Returns
    -------
    list of str
        The files' absolute paths.
    """
    from stm_models.explain.render import overlay_png
    from stm_models.explain.units import unit_of

    about = session.metadata
    task, described = get(about.task), about.as_dict()
    height, width = question.images.shape[2:]
    axes = task.axes({**described["input"], "height": height, "width": width})
    shown = maps[:MAPS_AT_MOST].sum(axis=1)
    if question.known is not None:
        shown = np.where(question.known, shown, np.nan)
    limit = float(np.nanmax(np.abs(shown), initial=0.0))
    summed, first = ("", about.input.unit)
    if maps.shape[1] > 1:
        summed, first = ", sum over channels", f"{task.channel_names(described['input'])[0]}: {about.input.unit}"
    written = []
    for row, entry in enumerate(answers[: len(shown)]):
        array, picture = (out / f"{entry['name']}_{method}.{suffix}" for suffix in ("npy", "png"))
        with atomic_path(array) as part, part.open("wb") as file:
            np.save(file, maps[row])
        overlay_png(
            picture, question.images[row, 0], shown[row], extent=axes.extent, labels=axes.labels,
            title=f"{method} of {task.explained(entry, described)}{summed}", limit=limit,
            unit=unit_of(method, about.targets[about.explained].unit, about.input.unit), image_label=first,
        )  # fmt: skip
        written += [str(path.absolute()) for path in (array, picture)]
    return written


def _left_out(session: Session, question: Question, entry: Mapping[str, Any], explain: str) -> list[str]:
    """Say how many places of an answered map are not explained by themselves."""
    count = len(get(session.metadata.task).places(entry, question.about))
    if count and not session.metadata.focusable:
        return [f"This model file explains the strongest of {count} places only: write it anew with 'stm export'."]
    if count > PLACES_AT_MOST:
        return [f"{entry['name']}: {explain} maps of the {PLACES_AT_MOST} surest of {count} places only."]
    return []
