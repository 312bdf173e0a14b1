"""Bloch matrices of states without C2zT symmetry: complex, one spin at a time.

Only one of each pair of a bond and its reverse is listed, and only the lower triangle is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

__all__ = ["assemble", "bond_orders", "diagonalise", "occupied_projector", "site_density"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
Ints = NDArray[np.int64]


@njit(cache=True)
def assemble(value: Array, phase: Complex, start: Ints, end: Ints, onsite: Floats, out: Complex) -> None:
    """Write the lower triangle of sum_b value exp(i k.d) + h.c. + diag(onsite) into ``out``.

    Parameters
    ----------
    value : (B,) float64 or complex128, eV
    phase : (B,) complex128
        exp(i k.d) of each bond.
    start, end : (B,) int64
        start <= end.
    onsite : (N,) float64, eV
    out : (N, N) complex128, Fortran order
    """
    out[:] = 0.0
    for b in range(value.shape[0]):
        term = value[b] * phase[b]
        i, j = start[b], end[b]
        if i == j:
            out[i, i] += 2 * term.real
        else:
            out[j, i] += term.conjugate()
    for i in range(onsite.shape[0]):
        out[i, i] += onsite[i]


def diagonalise(matrix: Complex) -> tuple[Floats, Complex]:
    """Eigenvalues (N,) and eigenvectors (N, N; in columns, Fortran order); ``matrix`` is overwritten.

    Raises
    ------
    RuntimeError
        When LAPACK's divide-and-conquer solver reports a failure.
    """
    values, vectors, info = lapack.zheevd(matrix, compute_v=1, lower=1, overwrite_a=1)
    if info != 0:
        raise RuntimeError(f"LAPACK zheevd failed with info={info}")
    return values, vectors


def occupied_projector(vectors: Complex, occupation: Floats) -> Complex:
    """P = sum_m f_m psi_m psi_m†, lower triangle of a Fortran-ordered (N, N) complex128.

    Parameters
    ----------
    vectors : (N, N) complex128
    occupation : (N,) float64
        Falling, as the energies rise.
    """
    count = int(np.searchsorted(-occupation, -1e-17))
    scaled = np.asfortranarray(vectors[:, :count] * np.sqrt(occupation[:count]))
    return blas.zherk(1.0, scaled, lower=1)


@njit(cache=True)
def bond_orders(projector: Complex, phase: Complex, start: Ints, end: Ints, weight: float, out: Complex) -> None:
    """Add weight P_ij exp(-i k.d) of every bond to ``out`` (B,) complex128.

    Parameters
    ----------
    projector : (N, N) complex128
        Lower triangle.
    phase : (B,) complex128
    start, end : (B,) int64
        start <= end.
    weight : float
    """
    for b in range(start.shape[0]):
        out[b] += weight * (projector[end[b], start[b]] * phase[b]).conjugate()


def site_density(vectors: Complex, weight: Floats) -> Floats:
    """Sum_m weight_m |psi_i|²: vectors (N, M), weight (M,) or (M, T), to (N,) or (N, T) float64."""
    return (vectors.real**2 + vectors.imag**2) @ weight
