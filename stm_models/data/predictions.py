"""What plots of a run's predictions are drawn from: numbers of every scored sample, in one .npz file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data import npz
from stm_models.errors import InputError, one_line
from stm_models.files import atomic_path

__all__ = ["FILE", "Predictions", "load", "save"]

FILE = "predictions.npz"
"""Its name among a run's files."""
SCHEMA = "stm-predictions/1"
_MOST = 5_000_000  # numbers of a column

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Predictions:
    """What a predictions file holds.

    Attributes
    ----------
    sets : mapping of str to columns
        By what the samples are called (``validation``); columns (N,) by name: of a regression ``true:U`` and
        ``predicted:U`` (and ``lower:U``, ``upper:U`` where the model has intervals), of found places ``confidence``,
        ``right``, ``reported`` (above the threshold; older files lack it) and (1,) ``impurities``.
    about : mapping
        ``units`` by target, ``digest`` of the data set, ``level`` of the intervals.
    """

    sets: Mapping[str, Columns]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        """Names of the numbers that are predicted."""
        names = [key.partition(":")[2] for columns in self.sets.values() for key in columns if key.startswith("true:")]
        return list(dict.fromkeys(names))


def save(path: str | Path, predictions: Predictions) -> None:
    """Write a file, atomically; ``path`` ends in ``.npz``."""
    sets = [(name, columns) for name, columns in predictions.sets.items()]
    content: dict[str, Any] = {
        "schema": np.array(SCHEMA),
        "sets": np.array([name for name, _ in sets], dtype=np.str_),
        "about": np.array(json.dumps(dict(predictions.about))),
    }
    for number, (_, columns) in enumerate(sets):
        content |= {f"{number}:{key}": np.asarray(values) for key, values in columns.items()}
    with atomic_path(path) as part:
        np.savez_compressed(part, allow_pickle=False, **content)


def load(path: str | Path) -> Predictions:
    """Read a file.

    Raises
    ------
    InputError
        When it is no such file.
    """
    try:
        content = npz.read(path, SCHEMA)
        sets: dict[str, dict[str, NDArray[Any]]] = {str(name): {} for name in content["sets"]}
        names = list(sets)
        for key, values in content.items():
            number, mark, column = key.partition(":")
            if mark:
                sets[names[int(number)]][column] = _numbers(values, column)
        about = json.loads(str(content["about"]))
        if not isinstance(about, dict):
            raise ValueError("about is no mapping")
        for columns in sets.values():
            _check(columns)
        return Predictions(sets, about)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} is no predictions file ({one_line(error)}): give the {FILE} of a run") from error


def _numbers(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim != 1 or values.dtype.kind not in "biuf" or len(values) > _MOST:
        raise ValueError(f"column {name} has shape {values.shape} and type {values.dtype}, expected a list of numbers")
    return values


def _check(columns: Columns) -> None:
    for key, values in columns.items():
        kind, _, target = key.partition(":")
        beside = {"predicted": "true", "lower": "true", "upper": "true"}.get(kind)
        of_places = {"right": "confidence", "reported": "confidence"}
        other = columns.get(f"{beside}:{target}" if beside else of_places.get(key, key))
        if other is None or len(other) != len(values):
            raise ValueError(f"column {key} has no other of its length beside it")
