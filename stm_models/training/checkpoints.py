"""The state of an unfinished training run, in one file."""

from __future__ import annotations

import pickle
import time
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.networks.model import Model
from stm_models.training.averaging import Average

__all__ = ["Checkpoint", "Keeper", "fingerprint", "read", "write"]

_FORMAT = 3
_EVERY = 5.0  # seconds
_SHARE = 0.05  # of the time, for writing


@dataclass
class Checkpoint:
    """Everything that the next step depends on.

    Learning rates follow from the step and the validation errors, the order of samples from the seed and the
    epoch's number: neither needs a state of its own.

    Attributes
    ----------
    settings : dict
        Training parameters that decide the result.
    data : int
        `fingerprint` of the data.
    epoch, best_epoch : int
        Last finished epoch and the best one; 0 before the first.
    best_error : float
        Validation error of the best epoch; what decides which one is best.
    errors : list of float
        Validation error of each finished epoch.
    position, pieces : int
        Finished steps of the next epoch, and steps per batch of the source: 2 once memory did not suffice.
    losses, weights : list
        Loss and number of samples of each of these steps.
    random : dict of str to Tensor
        States of the random generators after them.
    seconds : float
        Time spent on them.
    last, best, average : dict of str to Tensor
        Weights after the last step and the best epoch, and the moving average where there is one.
    optimiser : dict
    history : list of dict
        One entry per finished epoch.
    """

    settings: dict[str, Any]
    data: int
    epoch: int = 0
    best_epoch: int = 0
    best_error: float = float("inf")
    errors: list[float] = field(default_factory=list)
    position: int = 0
    pieces: int = 1
    losses: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    random: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    last: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Keeper:
    """Writes the checkpoint of a training every few seconds, less often where writing takes long.

    Parameters
    ----------
    path : Path or None
        ``None`` keeps nothing.
    model, optimiser, average
        What is kept beside the `Checkpoint`'s own.
    """

    def __init__(
        self, path: Path | None, model: Model, optimiser: torch.optim.Optimizer, average: Average | None
    ) -> None:
        self._path, self._model, self._optimiser, self._average = path, model, optimiser, average
        self._saved, self._every = time.monotonic(), _EVERY
        self.fresh = True

    def due(self) -> bool:
        """Tell whether it is time to write."""
        return self._path is not None and time.monotonic() - self._saved > self._every

    def write(self, state: Checkpoint) -> None:
        """Write ``state`` with the weights as they are now."""
        if self._path is None:
            return
        start = time.monotonic()
        state.last, state.optimiser = self._model.state_dict(), self._optimiser.state_dict()
        state.average = self._average.model.state_dict() if self._average is not None else {}
        write(self._path, state)
        self._saved, self.fresh = time.monotonic(), False
        self._every = max(_EVERY, (self._saved - start) / _SHARE)

    def restore(self, state: Checkpoint) -> None:
        """Put the weights back that ``state`` was written with."""
        self._model.load_state_dict(state.last)
        self._optimiser.load_state_dict(state.optimiser)
        if self._average is not None:
            self._average.model.load_state_dict(state.average)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` atomically."""
    values = {item.name: getattr(checkpoint, item.name) for item in fields(Checkpoint)}
    with atomic_path(path) as part, part.open("wb") as file:  # a full disk is then told as such
        torch.save({"format": _FORMAT, **values}, file)


def read(path: Path, settings: dict[str, Any], data: int) -> Checkpoint | None:
    """Read the checkpoint at ``path``, or return ``None`` when there is none.

    Raises
    ------
    InputError
        When the file is damaged, or belongs to other settings or other data.
    """
    if not path.exists():
        return None
    remedy = "give another checkpoint path, or delete this one to start again"
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values.pop("format") != _FORMAT:
            raise ValueError("format")
        found = Checkpoint(**values)
    except (
        OSError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise InputError(f"checkpoint {path} is damaged or not one of ours: {remedy}") from error
    for key in settings:
        if found.settings.get(key) != settings[key]:
            raise InputError(
                f"checkpoint {path} was made with {key}={found.settings.get(key)!r}, now it is "
                f"{settings[key]!r}: {remedy}"
            )
    if found.data != data:
        raise InputError(f"checkpoint {path} was made with other data: {remedy}")
    return found


def fingerprint(*arrays: NDArray[Any]) -> int:
    """Return a CRC-32 over the shapes and bytes of ``arrays``."""
    result = 0
    for array in arrays:
        result = zlib.crc32(f"{array.shape}{array.dtype}".encode(), result)
        result = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), result)
    return result
