"""The state of an unfinished training run, in one file."""

from __future__ import annotations

import pickle
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

__all__ = ["Checkpoint", "fingerprint", "read", "write"]

_FORMAT = 2


@dataclass
class Checkpoint:
    """Everything that the next epoch depends on.

    Random numbers are derived from the seed and the epoch's number, learning rates from the step: neither
    needs a state of its own.

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
    last, best : dict of str to Tensor
        Weights after the last and the best epoch.
    optimiser : dict
    history : list of dict
        One entry per finished epoch.
    """

    settings: dict[str, Any]
    data: int
    epoch: int = 0
    best_epoch: int = 0
    best_error: float = float("inf")
    last: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` atomically."""
    values = {item.name: getattr(checkpoint, item.name) for item in fields(Checkpoint)}
    with atomic_path(path) as part:
        torch.save({"format": _FORMAT, **values}, part)


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
