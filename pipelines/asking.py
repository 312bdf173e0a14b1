"""Asking a model about something: what predict, explain, evaluate and demo share.

A host with the serving extra alone can ask about files: data sets (zarr) and pictures (matplotlib) are
imported only where they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.metadata import ModelMetadata
from deploy.serving.session import Session
from stm_models.data import readers
from stm_models.errors import InputError, unknown
from stm_models.files import atomic_path, output_directory, write_json
from stm_models.tasks.base import RawMap
from stm_models.tasks.registry import get

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = [
    "MAPS_AT_MOST",
    "Question",
    "Reading",
    "answer",
    "answer_from",
    "check_fits",
    "parse_size",
    "predict_all",
    "read_question",
    "write_answers",
]

_BATCH = 64
MAPS_AT_MOST = 16
"""So many maps of one input are made; a data set may have thousands of rows."""


@dataclass(frozen=True)
class Reading:
    """How to read an input: ``key``, ``bias`` (V), ``channel`` and ``size_nm`` of a file, ``sample`` of a data set."""

    key: str | None = None
    bias: float | None = None
    channel: int | None = None
    size_nm: tuple[float, float] | None = None
    sample: int | None = None


@dataclass(frozen=True)
class Question:
    """Images ready for a model.

    Attributes
    ----------
    images : (S, C, H, W) float32
    names : list of str
        One per image, fit for file names.
    known : (H, W) bool or None
        False where the image is masked for want of information.
    notes : tuple of str
        What a reader of the answers must be told.
    truth : (S, T) float64 or None
        Targets, where the input is a data set.
    """

    images: NDArray[np.float32]
    names: list[str]
    known: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    truth: NDArray[np.float64] | None = None


def parse_size(text: str) -> tuple[float, float]:
    """Read ``HEIGHTxWIDTH`` in nm; one number stands for a square.

    Raises
    ------
    InputError
        When it is something else or not positive.
    """
    parts = text.lower().split("x")
    try:
        height, width = (float(part) for part in (parts * 2 if len(parts) == 1 else parts))
    except ValueError:
        height = width = math.nan
    if not (0 < height < math.inf and 0 < width < math.inf):
        raise InputError(f"--size-nm is {text!r}: expected HEIGHTxWIDTH in nm, e.g. 50x50")
    return height, width


def read_question(path: str | Path, session: Session, reading: Reading) -> Question:
    """Turn a data set, an array or a real-space map into the model's input.

    A bare ``.npy`` (nothing in ``reading``) of exactly the model's shape is an image already made, and a note
    says so; every other file is a real-space map and goes through the task's own preparation.

    Raises
    ------
    InputError
        For something that cannot be read, does not fit the model, or something in ``reading`` that means
        nothing for this kind of input.
    """
    path, about = Path(path), session.metadata
    if path.is_dir():
        return _from_data_set(path, session, reading)
    if reading.sample is not None and path.is_file():
        raise InputError(f"--sample is {reading.sample}, but {path} is a file: --sample is for data sets, leave it out")
    raw = readers.read(path, key=reading.key, bias=reading.bias, channel=reading.channel, size_nm=reading.size_nm)
    if path.suffix.lower() == ".npy" and reading == Reading():
        if raw.values.shape != about.input.shape:
            raise InputError(
                f"{path}: got an array of shape {raw.values.shape}, the model takes {about.input.shape}; "
                "if it is a real-space map, state its size with --size-nm HEIGHTxWIDTH"
            )
        note = (
            f"{path.name} is taken as it is, as an image in the model's unit {about.input.unit}; "
            "if it is a real-space map, state its size with --size-nm."
        )
        return Question(raw.values[None].astype(np.float32), [path.stem], notes=(note,))
    prepared = get(about.task).prepare(raw, about.as_dict()["input"])
    return Question(prepared.image[None], [_file_name(path, raw)], prepared.known, prepared.notes)


def check_fits(samples: Samples, metadata: ModelMetadata, path: str | Path) -> None:
    """Make sure that a data set is of the kind that a model was trained on.

    Raises
    ------
    InputError
        When its task, its targets (names and units, in order) or the shape of its images differ.
    """
    targets = [f"{target['name']} ({target['unit']})" for target in samples.attributes["targets"]]
    for what, got, expected in (
        ("task", samples.attributes.get("task"), metadata.task),
        ("targets", ", ".join(targets), ", ".join(f"{target.name} ({target.unit})" for target in metadata.targets)),
        ("image shape", samples.images.shape[1:], metadata.input.shape),
    ):
        if got != expected:
            raise InputError(
                f"{path}: its {what} is {got}, the model's is {expected}: "
                "give a data set of the task and preset that the model was trained on"
            )


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


def _from_data_set(path: Path, session: Session, reading: Reading) -> Question:
    from stm_models.data.dataset import load

    for option, value in (
        ("--key", reading.key),
        ("--bias", reading.bias),
        ("--channel", reading.channel),
        ("--size-nm", reading.size_nm),
    ):
        if value is not None:
            raise InputError(
                f"{option} is {value}, but {path} is a data set: {option} is for single files, leave it out "
                "(--sample chooses a row)"
            )
    samples = load(path, verify=True, include_unconverged=True)
    check_fits(samples, session.metadata, path)
    sample = reading.sample
    rows = np.arange(len(samples))
    if sample is not None:
        if not 0 <= sample < len(samples):
            raise InputError(f"--sample is {sample}: {path} has samples 0 to {len(samples) - 1}")
        rows = rows[sample : sample + 1]
    return Question(samples.images[rows], [f"sample-{row:05d}" for row in rows], truth=samples.targets[rows])


def _file_name(path: Path, raw: RawMap) -> str:
    if raw.bias is None or len(raw.bias) != 1:
        return path.stem
    return f"{path.stem}_{raw.bias[0] * 1000:+.0f}mV"
