"""Eigenproblems of all blocks of one iteration: LAPACK one by one, or one batch on a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from stm_models.errors import InputError, unknown
from stm_models.physics.moire import batched
from stm_models.physics.moire.branch import Eigensolver

__all__ = ["DEVICES", "diagonalise", "eigensolver", "one_by_one"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
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


def one_by_one(matrices: Iterable[Array]) -> tuple[Floats, list[Array]]:
    """Bands (blocks, N) and eigenvectors of Hermitian matrices, see `diagonalise`; one is held at a time."""
    done = [diagonalise(matrix) for matrix in matrices]
    return np.array([energies for energies, _ in done]), [vectors for _, vectors in done]


def diagonalise(matrix: Array) -> tuple[Floats, Array]:
    """Eigenvalues (N,) and eigenvectors (N, N; in columns, Fortran order) by divide and conquer.

    Parameters
    ----------
    matrix : (N, N) float64 or complex128
        Lower triangle, Fortran order; overwritten.

    Raises
    ------
    RuntimeError
        When LAPACK reports a failure.
    """
    driver = lapack.zheevd if np.iscomplexobj(matrix) else lapack.dsyevd
    values, vectors, info = driver(matrix, compute_v=1, lower=1, overwrite_a=1)
    if info != 0:
        raise RuntimeError(f"LAPACK's eigensolver failed with info={info}")
    return values, vectors


def _gpu() -> bool:
    # Importing torch takes seconds: not where the driver has left no device file.
    return any(Path(name).exists() for name in _DEVICE_FILES) and batched.available()
