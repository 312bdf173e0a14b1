"""Bloch matrices of states without C2zT symmetry, one spin at a time.

Complex, or real where all bond values are and k equals -k. Only one of each pair of a bond and its reverse is
listed, and only the lower triangle is kept. Phases are those of whole cells, exp(i k.R).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from stm_models.physics.compiled import compiled

__all__ = ["assemble", "bond_orders", "occupied_projector", "site_density"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def assemble(value: Array, phase: Array, start: Ints, end: Ints, onsite: Floats, out: Array) -> None:
    """Write the lower triangle of sum_b value phase + h.c. + diag(onsite) into ``out``.

    Parameters
    ----------
    value : (B,) float64 or complex128, eV
    phase : (B,) float64 or complex128
        exp(i k.R) of each bond i -> j + R.
    start, end : (B,) int64
        start <= end.
    onsite : (N,) float64, eV
    out : (N, N) of the common type, Fortran order
    """
    out[:] = 0.0
    for b in range(value.shape[0]):
        term = value[b] * phase[b]
        i, j = start[b], end[b]
        if i == j:
            out[i, i] += 2 * np.real(term)
        else:
            out[j, i] += np.conj(term)
    for i in range(onsite.shape[0]):
        out[i, i] += onsite[i]


def occupied_projector(vectors: Array, occupation: Floats) -> Array:
    """P = sum_m f_m psi_m psi_m†, lower triangle of a Fortran-ordered (N, N) of the vectors' type.

    Parameters
    ----------
    vectors : (N, N) float64 or complex128
    occupation : (N,) float64
        Falling, as the energies rise.
    """
    count = int(np.searchsorted(-occupation, -1e-17))
    scaled = np.asfortranarray(vectors[:, :count] * np.sqrt(occupation[:count]))
    return blas.zherk(1.0, scaled, lower=1) if np.iscomplexobj(scaled) else blas.dsyrk(1.0, scaled, lower=1)


@compiled
def bond_orders(projector: Array, phase: Array, start: Ints, end: Ints, weight: float, out: Array) -> None:
    """Add weight P_ij exp(-i k.R) of every bond to ``out`` (B,) complex128.

    Parameters
    ----------
    projector : (N, N) float64 or complex128
        Lower triangle.
    phase : (B,) float64 or complex128
        exp(i k.R) of each bond i -> j + R.
    start, end : (B,) int64
        start <= end.
    weight : float
    out : (B,) complex128
    """
    for b in range(start.shape[0]):
        out[b] += weight * np.conj(projector[end[b], start[b]] * phase[b])


def site_density(vectors: Array, weight: Floats) -> Floats:
    """Sum_m weight_m |psi_i|²: vectors (N, M), weight (M,) or (M, T), to (N,) or (N, T) float64."""
    return (vectors.real**2 + vectors.imag**2 if np.iscomplexobj(vectors) else vectors**2) @ weight
