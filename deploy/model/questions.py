"""What a model can be asked about: a data set, an array or a real-space map becomes its input.

A host with the serving extra alone can ask about files: zarr is imported only for a data set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.metadata import ModelMetadata
from stm_models.data import readers
from stm_models.errors import InputError
from stm_models.tasks.inputs import RawMap
from stm_models.tasks.registry import get

if TYPE_CHECKING:
    from deploy.model.session import Session
    from stm_models.data.dataset import Samples

__all__ = [
    "Question", "Reading", "check_fits", "load_fitting", "parse_angle", "parse_channel", "parse_samples", "parse_size",
    "parse_width", "read_file", "read_question",
]  # fmt: skip

_MOST_ROWS = 1_000_000
_WIDEST_ATOM = 0.5  # nm


@dataclass(frozen=True)
class Reading:
    """How to read an input: array, map (V or number), size (nm), turn (degrees) and width of atoms (nm) of a file, rows
    of a data set."""

    key: str | None = None
    bias: float | None = None
    channel: int | str | None = None
    size_nm: tuple[float, float] | None = None
    samples: tuple[int, ...] | None = None
    rotate: float | None = None
    atom_width: float | None = None


@dataclass(frozen=True)
class Question:
    """Images ready for a model.

    Attributes
    ----------
    images : (S, C, H, W) float32
        Of the model's height and width; one image of a task that takes `any_size` may have others.
    names : list of str
        One per image, fit for file names.
    known : (H, W) bool or None
        False where the image is masked for want of information.
    notes : tuple of str
        What a reader of the answers must be told.
    truth : list of dict or None
        What the task knows of each image, where the input is a data set.
    about : mapping
        What decoding needs to know of a measured map, see `stm_models.tasks.inputs.Prepared`.
    source : Samples or None
        The whole data set, where the input is one.
    rows : (S,) int
        Which of its samples the images are.
    """

    images: NDArray[np.float32]
    names: list[str]
    known: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    truth: list[dict[str, Any]] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    source: Samples | None = None
    rows: Sequence[int] | NDArray[np.int64] = ()


def parse_channel(text: str) -> int | str:
    """Read a signal's name, or the number of a map."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else text


def parse_samples(text: str) -> tuple[int, ...] | None:
    """Read rows of a data set: ``3``, ``3,5,9`` or ``0:16`` (the end left out); nothing stands for no choice.

    Raises
    ------
    InputError
        When it is something else, a range is empty, or there are more than a million rows.
    """
    found: list[int] = []
    for part in text.split(",") if text.strip() else ():
        match = re.fullmatch(r"\s*([0-9]{1,9})(?::([0-9]{1,9}))?\s*", part)
        end = None if match is None else int(match[2] or int(match[1]) + 1)
        if match is None or end is None or end <= int(match[1]):
            raise InputError(f"--samples is {text!r}: expected rows such as 3, 3,5,9 or 0:16")
        if len(found) + end - int(match[1]) > _MOST_ROWS:
            raise InputError(f"--samples is {text!r}: expected at most {_MOST_ROWS} rows")
        found += range(int(match[1]), end)
    return tuple(dict.fromkeys(found)) or None


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


def parse_angle(text: str) -> float:
    """Read degrees, counter-clockwise.

    Raises
    ------
    InputError
        When it is no number, or beyond a full turn.
    """
    try:
        degrees = float(text)
    except ValueError:
        degrees = math.nan
    if not abs(degrees) <= 360:
        raise InputError(f"--rotate is {text!r}: expected degrees counter-clockwise from -360 to 360, e.g. -3.5")
    return degrees


def parse_width(text: str) -> float:
    """Read an atom's standard deviation in nm.

    Raises
    ------
    InputError
        When it is no number, negative, or wider than any atom.
    """
    try:
        width = float(text)
    except ValueError:
        width = math.nan
    if not 0 <= width <= _WIDEST_ATOM:
        raise InputError(
            f"--atom-width is {text!r}: expected an atom's standard deviation in nm, 0 to {_WIDEST_ATOM:g}, e.g. 0.05"
        )
    return width


def read_question(path: str | Path, session: Session, reading: Reading) -> Question:
    """Turn a data set, or a file as `read_file` does, into the model's input.

    Raises
    ------
    InputError
        For something that cannot be read, does not fit the model, or something in ``reading`` that means
        nothing for this kind of input.
    """
    path, about = Path(path), session.metadata
    if path.is_dir():
        return _from_data_set(path, session, reading)
    if reading.samples is not None and path.is_file():
        chosen = ", ".join(map(str, reading.samples))
        option = "--sample" if len(reading.samples) == 1 else "--samples"
        raise InputError(f"{option} is {chosen}, but {path} is a file: {option} is for data sets, leave it out")
    return read_file(path, about, reading)


def read_file(path: Path, about: ModelMetadata, reading: Reading) -> Question:
    """Turn an array or a real-space map into a model's input.

    A bare ``.npy`` (nothing in ``reading``) of exactly the model's shape is an image already made, and a note
    says so; every other file is a real-space map and goes through the task's own preparation.

    Raises
    ------
    InputError
        For something that cannot be read, does not fit the model, or something in ``reading`` that means
        nothing for this kind of file.
    """
    raw = readers.read(path, key=reading.key, bias=reading.bias, channel=reading.channel, size_nm=reading.size_nm)
    if path.suffix.lower() == ".npy" and reading == Reading():
        if raw.values.shape != about.input.shape:
            raise InputError(
                f"{path.name}: got an array of shape {raw.values.shape}, the model takes {about.input.shape}; "
                "if it is a real-space map, state its size with --size-nm HEIGHTxWIDTH"
            )
        note = (
            f"{path.name} is taken as it is, as an image in the model's unit {about.input.unit}; "
            "if it is a real-space map, state its size with --size-nm."
        )
        return Question(raw.values[None].astype(np.float32), [path.stem], notes=(note,))
    task = get(about.task)
    for name in ("rotate", "atom_width"):
        value = getattr(reading, name)
        if value is None:
            continue
        if name not in task.map_options:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is {value:g}: task {task.name} takes maps as they are, leave it out")
        raw = replace(raw, **{name: value})
    prepared = task.prepare(raw, about.as_dict()["input"])
    notes = (*raw.notes, *prepared.notes)
    return Question(prepared.image[None], [_file_name(path, raw)], prepared.known, notes, about=prepared.about)


def load_fitting(path: str | Path, metadata: ModelMetadata, *, include_unconverged: bool = False) -> Samples:
    """Read a data set, verified, with the labels that a model predicts.

    Raises
    ------
    InputError
        As `stm_models.data.dataset.load` and `check_fits`.
    """
    from stm_models.data.dataset import load, task_of

    _agree(path, "task", task_of(path), metadata.task)  # first, since another task's data lack targets and arrays
    names = [target.name for target in metadata.targets]
    samples = load(
        path, verify=True, include_unconverged=include_unconverged, targets=names, arrays=get(metadata.task).arrays
    )
    check_fits(samples, metadata, path)
    return samples


def check_fits(samples: Samples, metadata: ModelMetadata, path: str | Path) -> None:
    """Make sure that a data set is of the kind that a model was trained on.

    Raises
    ------
    InputError
        When its task, its targets (names and units, in order) or the shape of its images differ; of a task whose
        images may have any size, the number of channels. Also when the task tells its images from the model's: see
        `stm_models.tasks.base.Task.input_differences`.
    """
    task = get(metadata.task)
    kept = slice(1, 2) if task.any_size else slice(1, 4)
    targets = [f"{target['name']} ({target['unit']})" for target in samples.attributes["targets"]]
    for what, got, expected in (
        ("task", samples.attributes.get("task"), metadata.task),
        ("targets", ", ".join(targets), ", ".join(f"{target.name} ({target.unit})" for target in metadata.targets)),
        ("image shape", samples.images.shape[kept], metadata.input.shape[: kept.stop - 1]),
        *task.input_differences(samples.attributes.get("input", {}), metadata.as_dict()["input"]),
    ):
        _agree(path, what, got, expected)


def _agree(path: str | Path, what: str, got: object, expected: object) -> None:
    if got != expected:
        raise InputError(
            f"{path}: its {what} is {got}, the model's is {expected}: "
            "give a data set that was simulated as the one that the model was trained on (task, preset, --set)"
        )


def _from_data_set(path: Path, session: Session, reading: Reading) -> Question:
    for option, value in (
        ("--key", reading.key),
        ("--bias", reading.bias),
        ("--channel", reading.channel),
        ("--size-nm", reading.size_nm),
        ("--rotate", reading.rotate),
        ("--atom-width", reading.atom_width),
    ):
        if value is not None:
            raise InputError(
                f"{option} is {value}, but {path} is a data set: {option} is for single files, leave it out "
                "(--sample chooses a row)"
            )
    samples = load_fitting(path, session.metadata, include_unconverged=True)
    rows = np.arange(len(samples))
    if reading.samples is not None:
        for sample in reading.samples:
            if not 0 <= sample < len(samples):
                asked = f"--sample is {sample}" if len(reading.samples) == 1 else f"--samples asks for {sample}"
                raise InputError(f"{asked}: {path} has samples 0 to {len(samples) - 1}")
        rows = rows[list(reading.samples)]
    task = get(session.metadata.task)
    truth = [task.truth(samples, int(row)) for row in rows]
    names = [f"sample-{row:05d}" for row in rows]
    return Question(samples.images[rows], names, truth=truth, source=samples, rows=rows)


def _file_name(path: Path, raw: RawMap) -> str:
    if raw.bias is None or len(raw.bias) != 1:
        return path.stem
    return f"{path.stem}_{raw.bias[0] * 1000:+.0f}mV"
