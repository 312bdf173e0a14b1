"""Double-gate screened Coulomb interaction and its lattice sum."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.compiled import compiled
from stm_models.physics.moire.constants import COULOMB, LATTICE_CONSTANT
from stm_models.physics.moire.hopping import Bonds
from stm_models.physics.moire.lattice import Lattice, site_images
from stm_models.physics.moire.symmetry import symmetries

__all__ = ["exchange", "hartree_matrix", "hartree_rows", "screened"]

Floats = NDArray[np.float64]
_IMAGES = 60
_HARTREE_CUT = 1.5


def screened(distance: Floats, dielectric: float, gate_distance: float) -> Floats:
    """Coulomb energy of two electrons midway between two metallic gates.

    V(r) = e²/(4 pi eps0 eps) sum_n (-1)^n / sqrt(r² + (n xi)²), n = -60..60, end terms halved.

    Parameters
    ----------
    distance : float64 array, a
        Must be positive.
    dielectric : float
        Relative dielectric constant eps.
    gate_distance : float
        Distance xi of the gates in nm.

    Returns
    -------
    float64 array, eV

    Notes
    -----
    Throckmorton and Vafek, PRB 86, 115447 (2012), Eq. 3.
    """
    gate = gate_distance * 10 / LATTICE_CONSTANT
    total = 1 / distance
    for image in range(1, _IMAGES + 1):
        share = 1.0 if image < _IMAGES else 0.5
        total = total + 2 * share * (-1) ** image / np.sqrt(distance**2 + (image * gate) ** 2)
    return COULOMB / dielectric * total


def exchange(bonds: Bonds, dielectric: float | None, gate_distance: float, fock_range: float) -> Floats:
    """Coulomb energy V(r_b) of each bond, (B,) float64 in eV.

    Zero beyond ``fock_range`` (a, in the plane) and where ``dielectric`` is None.
    """
    if dielectric is None:
        return np.zeros(len(bonds.start))
    return np.where(bonds.plane <= fock_range + 1e-9, screened(bonds.length, dielectric, gate_distance), 0.0)


def hartree_rows(lattice: Lattice, rows: NDArray[np.int64], dielectric: float, gate_distance: float) -> Floats:
    """Lattice sums V_ij = sum_R V(|r_j + R - r_i|) for some sites i, the self term left out.

    Pairs farther than 1.5 gate distances in the plane are dropped: V decays as exp(-pi r / xi).

    Parameters
    ----------
    lattice : Lattice
    rows : (n,) int64
        The sites i.
    dielectric, gate_distance : float
        See :func:`screened`.

    Returns
    -------
    (n, N) float64, eV
    """
    cut = _HARTREE_CUT * gate_distance * 10 / LATTICE_CONSTANT
    table_r = np.linspace(0.2, math.hypot(cut, 4.0), 4000)
    table_v = screened(table_r, dielectric, gate_distance)
    reach = math.ceil(cut / lattice.spacing) + 1
    steps = np.arange(-reach, reach + 1)
    shifts = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2) @ lattice.vectors
    result = np.zeros((len(rows), lattice.size))
    # 1/r is interpolated poorly by a straight line, r V(r) well.
    _add_rows(lattice.positions, rows, shifts, cut, table_r[0], table_r[1] - table_r[0], table_r * table_v, result)
    return result


@compiled
def _add_rows(
    positions: Floats, rows: NDArray[np.int64], shifts: Floats, cut: float, low: float, step: float,
    table: Floats, out: Floats,
) -> None:  # fmt: skip
    for row in range(rows.shape[0]):
        site = rows[row]
        for other in range(positions.shape[0]):
            x = positions[other, 0] - positions[site, 0]
            y = positions[other, 1] - positions[site, 1]
            z = positions[other, 2] - positions[site, 2]
            total = 0.0
            for shift in range(shifts.shape[0]):
                plane2 = (x + shifts[shift, 0]) ** 2 + (y + shifts[shift, 1]) ** 2
                distance = math.sqrt(plane2 + z * z)
                if plane2 <= cut * cut and distance > 1e-9:
                    place = min(max((distance - low) / step, 0.0), table.shape[0] - 1.0)
                    left = min(int(place), table.shape[0] - 2)
                    total += (table[left] + (place - left) * (table[left + 1] - table[left])) / distance
            out[row, other] += total


def hartree_matrix(lattice: Lattice, dielectric: float, gate_distance: float) -> Floats:
    """Lattice sums between all pairs of sites, (N, N) float64, eV: one row per class of sites, then its images.

    Parameters are those of :func:`hartree_rows`.
    """
    partners = [site_images(lattice, operation)[0] for operation in symmetries(lattice)]
    label = np.min(partners, axis=0)
    result = np.empty((lattice.size, lattice.size))
    first = np.flatnonzero(label == np.arange(lattice.size))
    for site, row in zip(first, hartree_rows(lattice, first, dielectric, gate_distance), strict=True):
        for partner in partners:
            result[partner[site], partner] = row
    return result
