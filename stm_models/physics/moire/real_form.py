"""Real-symmetric form of C2zT-symmetric Bloch matrices: half the cost of a complex eigensolver, or less.

With sites ordered so that i + N/2 is the image of i under C2z, the basis u = (|a> + |b>)/√2,
v = i(|a> - |b>)/√2 makes H(k) real:

    R = [[Re(haa + hab), Im(hab - haa)], [Im(haa + hab), Re(haa - hab)]].

Only bonds that start on the first half of the sites are needed; the others are their images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from stm_models.physics.compiled import compiled

__all__ = ["assemble", "occupied_projector", "pair_expectation", "site_density"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def assemble(value: Floats, cos: Floats, sin: Floats, start: Ints, end: Ints, onsite: Floats, out: Floats) -> None:
    """Write the real form of sum_b value exp(i k.d) + diag(onsite) into ``out``.

    Parameters
    ----------
    value, cos, sin : (B,) float64
        Bond values and their Bloch phases, bonds starting on the first half of the sites.
    start, end : (B,) int64
    onsite : (N/2,) float64, eV
    out : (N, N) float64
    """
    half = out.shape[0] // 2
    out[:] = 0.0
    for b in range(value.shape[0]):
        re, im = value[b] * cos[b], value[b] * sin[b]
        i, j = start[b], end[b]
        if j < half:
            out[i, j] += re
            out[i, half + j] -= im
            out[half + i, j] += im
            out[half + i, half + j] += re
        else:
            j -= half
            out[i, j] += re
            out[i, half + j] += im
            out[half + i, j] += im
            out[half + i, half + j] -= re
    for i in range(half):
        out[i, i] += onsite[i]
        out[half + i, half + i] += onsite[i]


def occupied_projector(vectors: Floats, occupation: Floats) -> Floats:
    """Q = sum_m f_m x_m x_mᵀ, upper triangle of a C-ordered (N, N) float64.

    Parameters
    ----------
    vectors : (N, N) float64
    occupation : (N,) float64
        Falling, as the energies rise.
    """
    count = int(np.searchsorted(-occupation, -1e-17))
    scaled = np.asfortranarray(vectors[:, :count] * np.sqrt(occupation[:count]))
    return blas.dsyrk(1.0, scaled, lower=1).T


@compiled
def pair_expectation(
    projector: Floats, cos: Floats, sin: Floats, start: Ints, end: Ints, label: Ints, out: Floats
) -> None:
    """Add Re[P_ij exp(-i k.d)] of every bond to its class in ``out``; P = sum f psi_i psi_j*.

    Parameters
    ----------
    projector : (N, N) float64
        Upper triangle of Q in the real basis.
    cos, sin : (B,) float64
    start, end, label : (B,) int64
    out : (classes,) float64
    """
    half = projector.shape[0] // 2
    for b in range(start.shape[0]):
        i, j = start[b], end[b]
        image = j >= half
        if image:
            j -= half
        uu = projector[i, j] if i <= j else projector[j, i]
        vv = projector[half + i, half + j] if i <= j else projector[half + j, half + i]
        uv = projector[i, half + j]
        vu = projector[j, half + i]
        if image:
            re, im = 0.5 * (uu - vv), 0.5 * (vu + uv)
        else:
            re, im = 0.5 * (uu + vv), 0.5 * (vu - uv)
        out[label[b]] += re * cos[b] + im * sin[b]


def site_density(vectors: Floats, weight: Floats) -> Floats:
    """Sum_m weight_m |psi_i|² on the first half of the sites.

    Parameters
    ----------
    vectors : (N, M) float64
    weight : (M,) or (M, T) float64

    Returns
    -------
    (N/2,) or (N/2, T) float64
    """
    half = vectors.shape[0] // 2
    return 0.5 * ((vectors[:half] ** 2 + vectors[half:] ** 2) @ weight)
