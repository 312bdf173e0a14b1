"""Multiple scattering of a two-dimensional electron gas off point scatterers (s waves).

rho / rho0 = 1 + Re sum_ij H(k |r - r_i|) M_ij H(k |r_j - r|), with H the Hankel function H0 of the first kind,
M = (1 - s Hoff)^-1 s, Hoff = H between different scatterers, s = (a exp(2 i delta) - 1) / 2.
Fiete and Heller, Rev. Mod. Phys. 75, 933 (2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas

from stm_models.errors import InputError
from stm_models.physics.surface.hankel import HankelTable, tabulate, waves

__all__ = ["Scatterers", "density", "pixel_grid", "t_matrix"]

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
_CHUNK = 512  # points whose waves fit into the cache


@dataclass(frozen=True)
class Scatterers:
    """Point scatterers.

    Attributes
    ----------
    positions : (N, 2) float64, px
        y, x.
    phase : (N,) float64, rad
        delta at the Fermi energy.
    slope : (N,) float64, rad/V
        delta(V) = phase + slope V.
    absorption : (N,) float64
        a, the share of the amplitude that is scattered back into the surface state; 1 absorbs nothing.
    """

    positions: Floats
    phase: Floats
    slope: Floats
    absorption: Floats

    def __post_init__(self) -> None:
        count = len(self.positions)
        if np.shape(self.positions) != (count, 2):
            raise InputError(
                f"scatterer positions have shape {np.shape(self.positions)}: expected (N, 2), y and x in px"
            )
        for name in ("phase", "slope", "absorption"):
            values = np.asarray(getattr(self, name))
            if values.shape != (count,) or not np.all(np.isfinite(values)):
                raise InputError(
                    f"{name} has shape {values.shape}: expected one finite value for each of {count} scatterers"
                )
        if np.any((self.absorption < 0) | (self.absorption > 1)):
            raise InputError("absorption a lies outside 0 to 1: 1 absorbs nothing, 0 everything")

    def strength(self, biases: ArrayLike) -> Complexes:
        """S = (a exp(2 i delta(V)) - 1) / 2: (V, N) complex128, biases in V."""
        delta = self.phase + np.asarray(biases, np.float64)[:, None] * self.slope
        return (self.absorption * np.exp(2j * delta) - 1) / 2


def t_matrix(table: HankelTable, positions: Floats, strength: Complexes) -> Complexes:
    """M = (1 - s Hoff)^-1 s: (N, N) complex128, symmetric.

    Parameters
    ----------
    table : HankelTable
        Covers the distances between the scatterers.
    positions : (N, 2) float64, px
    strength : (N,) complex128
    """
    count = len(positions)
    parts = waves(table, positions, positions)
    between = parts[:count] + 1j * parts[count:]
    np.fill_diagonal(between, 0)
    matrix = np.linalg.solve(np.eye(count) - strength[:, None] * between, np.diag(strength))
    return np.asarray(matrix, np.complex128)


def pixel_grid(size: int) -> Floats:
    """Centres of ``size`` x ``size`` pixels, row by row: (size², 2) float64, y and x in px, first pixel at 0."""
    y, x = np.meshgrid(np.arange(size, dtype=np.float64), np.arange(size, dtype=np.float64), indexing="ij")
    return np.column_stack([y.ravel(), x.ravel()])


def density(
    points: Floats, scatterers: Scatterers, biases: ArrayLike, wave_numbers: ArrayLike, shifts: Floats | None = None
) -> Floats:
    """rho / rho0 at every point and bias.

    Parameters
    ----------
    points : (P, 2) float64, px
    scatterers : Scatterers
    biases : (V,) array_like, V
    wave_numbers : (V,) array_like, rad/px
        Real or complex, Re k > 0, Im k >= 0.
    shifts : (V, 2) float64, px, optional
        Moves the points at each bias (drift).

    Returns
    -------
    (V, P) float64

    Raises
    ------
    InputError
        When the shapes differ or a wave number is not one of an outgoing wave.

    Notes
    -----
    M is symmetric, so that with H = a + i b the sum is a real quadratic form in (a, b); its upper triangle is
    all that is multiplied, in single precision: error below 1e-6 of the largest value.
    """
    volts = np.asarray(biases, np.float64)
    k = np.asarray(wave_numbers, np.complex128)
    if volts.ndim != 1 or k.shape != volts.shape:
        raise InputError(f"biases {volts.shape} and wave numbers {k.shape}: expected two lists of the same length")
    if not np.all(np.isfinite(k) & (k.real > 0) & (k.imag >= 0)):
        raise InputError("a wave number is not that of an outgoing wave: expected Re k > 0 and Im k >= 0 in rad/px")
    result = np.ones((len(volts), len(points)))
    count = len(scatterers.positions)
    if not count:
        return result
    strengths = scatterers.strength(volts)
    for v in range(len(volts)):
        here = points if shifts is None else points + shifts[v]
        everything = np.concatenate([here, scatterers.positions])
        table = tabulate(complex(k[v]), float(np.linalg.norm(np.ptp(everything, axis=0))))
        triangle = _triangle(t_matrix(table, scatterers.positions, strengths[v])).astype(np.float32, order="F")
        for first in range(0, len(points), _CHUNK):
            part = here[first : first + _CHUNK]
            wave = waves(table, part, scatterers.positions, np.empty((2 * count, len(part)), np.float32))
            product = blas.strmm(1.0, triangle, wave.T, side=1)
            result[v, first : first + _CHUNK] += np.einsum("ip,ip->p", wave, product.T)
    return result


def _triangle(matrix: Complexes) -> Floats:
    """T, upper triangular, with Re h^T M h = (a, b) T (a, b)^T for h = a + i b."""
    symmetric = (matrix + matrix.T) / 2
    form = np.block([[symmetric.real, -symmetric.imag], [-symmetric.imag, -symmetric.real]])
    return np.asarray(2 * np.triu(form, 1) + np.diag(np.diag(form)))
