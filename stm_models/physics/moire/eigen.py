"""Eigenproblems of all blocks of one iteration: LAPACK one by one, or one batch on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError, unknown
from stm_models.physics.moire import batched, complex_form, real_form
from stm_models.physics.moire.branch import Eigensolver

__all__ = ["DEVICES", "eigensolver", "one_by_one"]

Array = NDArray[Any]
DEVICES = ("cpu", "cuda", "auto")
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


def eigensolver(device: str) -> Eigensolver:
    """Return what diagonalises on ``device``: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

    Raises
    ------
    InputError
        For another name, or ``cuda`` where torch sees no GPU.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda" and not _gpu():
        raise InputError("device is cuda, but torch sees no GPU here: use cpu, or auto to take one where there is one")
    if device == "cuda" or (device == "auto" and _gpu()):
        return partial(batched.diagonalise, device="cuda")
    return one_by_one


def one_by_one(matrices: Iterable[Array]) -> tuple[NDArray[np.float64], list[Array]]:
    """Bands (blocks, N) and eigenvectors of Hermitian matrices, each overwritten; one is held at a time."""
    energies, vectors = [], []
    for matrix in matrices:
        form = complex_form if np.iscomplexobj(matrix) else real_form
        values, states = form.diagonalise(matrix)
        energies.append(values)
        vectors.append(states)
    return np.array(energies), vectors


def _gpu() -> bool:
    # Importing torch takes seconds: not where the driver has left no device file.
    return any(Path(name).exists() for name in _DEVICE_FILES) and batched.available()
