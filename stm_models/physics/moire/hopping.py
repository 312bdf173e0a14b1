"""Bonds of the bilayer and their Slater-Koster hopping."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stm_models.physics.moire.constants import (
    BOND_LENGTH,
    DECAY,
    HOPPING_RANGE,
    INTERLAYER,
    V_PI,
    V_SIGMA,
)
from stm_models.physics.moire.lattice import Lattice

__all__ = ["Bonds", "bloch_matrix", "find_bonds", "hopping", "slater_koster"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bonds:
    """Directed bonds i -> j + R, sorted by the site they start from.

    Attributes
    ----------
    start, end : (B,) int64
    cell : (B, 2) int64
        R in units of the moiré vectors.
    vector : (B, 3) float64, a
        r_j + R - r_i.
    plane : (B,) float64, a
        In-plane length before strain: cut-offs are laid on it, so that strain makes and breaks no bond.
    """

    start: Ints
    end: Ints
    cell: Ints
    vector: Floats
    plane: Floats

    @property
    def length(self) -> Floats:
        """Distance of the two atoms, (B,) float64, a."""
        return np.linalg.norm(self.vector, axis=1)


def find_bonds(lattice: Lattice, reach: float = HOPPING_RANGE) -> Bonds:
    """List every directed bond whose in-plane length is at most ``reach`` (in a) before strain."""
    undo = np.linalg.inv(lattice.deformation).T
    copies = math.ceil(reach * float(np.linalg.norm(lattice.deformation, 2)) / lattice.spacing) + 1
    steps = np.arange(-copies, copies + 1)
    cells = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    plane = lattice.positions[:, :2] @ undo
    images = (cells @ lattice.vectors @ undo)[:, None, :] + plane[None, :, :]
    neighbours = cKDTree(images.reshape(-1, 2)).query_ball_point(plane, reach + 1e-9, return_sorted=True)
    start = np.repeat(np.arange(lattice.size), [len(found) for found in neighbours])
    flat = np.concatenate([np.asarray(found, dtype=np.int64) for found in neighbours])
    end, cell = flat % lattice.size, cells[flat // lattice.size]
    vector = lattice.positions[end] - lattice.positions[start]
    vector[:, :2] += cell @ lattice.vectors
    real = np.linalg.norm(vector, axis=1) > 1e-9
    length = np.linalg.norm(vector[:, :2] @ undo, axis=1)
    return Bonds(start[real], end[real], cell[real], vector[real], length[real])


def hopping(bonds: Bonds, interlayer_scale: float = 1.0) -> Floats:
    """Slater-Koster hopping of each bond, (B,) float64 in eV: zero beyond 2.5 a in the plane."""
    return np.where(bonds.plane <= HOPPING_RANGE + 1e-9, slater_koster(bonds.vector, interlayer_scale), 0.0)


def slater_koster(vector: Floats, interlayer_scale: float = 1.0) -> Floats:
    """Hopping matrix element of two p_z orbitals.

    t(r) = V_pi exp(-(r - a_CC)/r0) (1 - c²) + V_sigma exp(-(r - d0)/r0) c², with c = z/r.

    Parameters
    ----------
    vector : (B, 3) float64, a
    interlayer_scale : float
        Factor on hopping between the layers; 0 decouples them.

    Returns
    -------
    (B,) float64, eV

    Notes
    -----
    Moon and Koshino, PRB 85, 195458 (2012), Eqs. 3 and 4.
    """
    distance = np.linalg.norm(vector, axis=1)
    cosine2 = (vector[:, 2] / distance) ** 2
    t = V_PI * np.exp(-(distance - BOND_LENGTH) / DECAY) * (1 - cosine2)
    t += V_SIGMA * np.exp(-(distance - INTERLAYER) / DECAY) * cosine2
    return np.where(np.abs(vector[:, 2]) > 1e-9, interlayer_scale, 1.0) * t


def bloch_matrix(size: int, bonds: Bonds, values: Floats, k: Floats) -> NDArray[np.complex128]:
    """Sum bond values with their Bloch phases: H_ij(k) = sum_R v exp(i k.d), atomic gauge.

    Parameters
    ----------
    size : int
        Number of sites N.
    bonds : Bonds
    values : (B,) float64 or complex128, eV
    k : (2,) float64, 1/a

    Returns
    -------
    (N, N) complex128, eV
    """
    terms = values * np.exp(1j * (bonds.vector[:, :2] @ k))
    place = bonds.start * size + bonds.end
    real = np.bincount(place, terms.real, size * size)
    return (real + 1j * np.bincount(place, terms.imag, size * size)).reshape(size, size)
