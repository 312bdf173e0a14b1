"""Commensurate twisted bilayer graphene: atoms, cell, Brillouin zone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from stm_models.errors import InputError
from stm_models.physics.moire.constants import INTERLAYER, LATTICE_CONSTANT

__all__ = ["Lattice", "build", "patch", "site_images", "twist_angle"]

Floats = NDArray[np.float64]
_ON_CELL_EDGE = 1e-9
_POISSON = 0.16


@dataclass(frozen=True)
class Lattice:
    """One moiré cell of the commensurate structure (I, I+1), AA region and rotation axis at the origin.

    Sites are ordered so that site i + N/2 is the image of site i under the in-plane half turn C2z, which stays
    a symmetry under any strain.

    Attributes
    ----------
    index : int
        I of the commensurate pair (I, I+1).
    positions : (N, 3) float64, a
    layer : (N,) int64
        0 below, 1 above.
    sublattice : (N,) int64
    vectors : (2, 2) float64, a
        Moiré lattice vectors as rows.
    deformation : (2, 2) float64
        1 + strain: what in-plane positions of the unstrained crystal were multiplied by.
    """

    index: int
    positions: Floats
    layer: NDArray[np.int64]
    sublattice: NDArray[np.int64]
    vectors: Floats
    deformation: Floats = field(default_factory=lambda: np.eye(2))

    @property
    def size(self) -> int:
        """Number of atoms N in the cell."""
        return len(self.positions)

    @cached_property
    def reciprocal(self) -> Floats:
        """Reciprocal lattice vectors as rows, (2, 2) float64, 1/a."""
        return np.linalg.inv(self.vectors / (2 * math.pi)).T.astype(np.float64, copy=False)

    @property
    def spacing(self) -> float:
        """Smallest distance of neighbouring rows of cells in a: how far one step of cells reaches at least."""
        return 2 * math.pi / float(np.linalg.norm(self.reciprocal, axis=1).max())

    def high_symmetry(self) -> dict[str, Floats]:
        """Γ, M, K and K' of the moiré Brillouin zone, each (2,) float64, 1/a; strain carries them along."""
        g1, g2 = self.reciprocal
        return {"Γ": np.zeros(2), "M": g1 / 2, "K": (2 * g1 + g2) / 3, "K'": (g1 + 2 * g2) / 3}


def build(
    index: int,
    layer_distance: float = INTERLAYER * LATTICE_CONSTANT,
    strain: float = 0.0,
    strain_angle: float = 0.0,
) -> Lattice:
    """Place the atoms of the commensurate cell (I, I+1).

    Parameters
    ----------
    index : int
        I >= 1; N = 4 (3 I² + 3 I + 1) atoms and cos(theta) = (3 I² + 3 I + 1/2) / (3 I² + 3 I + 1).
    layer_distance : float
        Distance of the layers in Å.
    strain : float
        Uniaxial strain of the whole bilayer (0.01 stretches by 1 %); across it graphene contracts by its
        Poisson ratio of 0.16. The layer distance stays.
    strain_angle : float
        Direction of the strain in degrees from x, a twofold axis of the unstrained bilayer.

    Raises
    ------
    InputError
        For I < 1, a distance that is not positive, or a strain beyond graphene's (0.2 either way).

    Notes
    -----
    Lopes dos Santos, Peres and Castro Neto, PRB 86, 155449. Poisson ratio: Pereira, Castro Neto and Peres,
    PRB 80, 045401 (2009).
    """
    if index < 1:
        raise InputError(f"commensurate index I is {index}: expected a whole number of at least 1")
    if not layer_distance > 0:
        raise InputError(f"layer distance is {layer_distance} Å: expected a positive length, e.g. 3.35")
    if not (abs(strain) <= 0.2 and math.isfinite(strain_angle)):
        raise InputError(
            f"strain is {strain:g} at {strain_angle:g} degrees: expected a fraction within 0.2 either way "
            "(0.01 is one per cent) and a finite angle"
        )
    graphene = np.array([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    rotations = [_rotation(-_angle(index) / 2), _rotation(_angle(index) / 2)]
    first = rotations[0] @ (index * graphene[0] + (index + 1) * graphene[1])
    vectors = np.array([first, _rotation(math.pi / 3) @ first])
    basis = np.array([graphene.sum(axis=0), -graphene.sum(axis=0)]) / 3
    reach = 3 * index + 4
    m, n = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    cells = np.stack([m.ravel(), n.ravel()], axis=1) @ graphene

    positions, layers, sublattices = [], [], []
    for layer, rotation in enumerate(rotations):
        for sublattice, offset in enumerate(basis):
            plane = (cells + offset) @ rotation.T
            fraction = plane @ np.linalg.inv(vectors)
            inside = np.all((fraction >= -_ON_CELL_EDGE) & (fraction < 1 - _ON_CELL_EDGE), axis=1)
            height = (layer - 0.5) * layer_distance / LATTICE_CONSTANT
            positions.append(np.column_stack([plane[inside], np.full(inside.sum(), height)]))
            layers += [layer] * int(inside.sum())
            sublattices += [sublattice] * int(inside.sum())
    lattice = Lattice(index, np.concatenate(positions), np.array(layers), np.array(sublattices), vectors)
    expected = 4 * (3 * index**2 + 3 * index + 1)
    if lattice.size != expected:
        raise RuntimeError(f"placed {lattice.size} atoms in the cell I={index}, expected {expected}")
    return _strained(_pair_half_turn(lattice), strain, strain_angle)


def twist_angle(index: int) -> float:
    """Twist angle of the commensurate pair (I, I+1) in degrees; strain does not change it."""
    return math.degrees(_angle(index))


def patch(lattice: Lattice, radius: float) -> tuple[Floats, NDArray[np.int64]]:
    """List the atoms of the periodic crystal inside a disc around the AA rotation centre.

    A disc keeps whatever symmetry the crystal has; a parallelogram would break it.

    Parameters
    ----------
    lattice : Lattice
    radius : float
        Disc radius in a.

    Returns
    -------
    positions : (M, 2) float64, a
    sites : (M,) int64
        Which site of the cell each atom is a copy of.
    """
    reach = math.ceil(radius / lattice.spacing) + 1
    m, n = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1), indexing="ij")
    shifts = np.stack([m.ravel(), n.ravel()], axis=1) @ lattice.vectors
    points = (shifts[:, None, :] + lattice.positions[None, :, :2]).reshape(-1, 2)
    sites = np.tile(np.arange(lattice.size), len(shifts))
    # The tolerance takes or leaves whole shells: symmetric copies differ by rounding alone.
    inside = np.hypot(points[:, 0], points[:, 1]) < radius + 1e-6
    return points[inside], sites[inside]


def site_images(lattice: Lattice, operation: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where an operation sends each site.

    Returns
    -------
    partner : (N,) int64
        operation @ r_i = r_partner[i] + shift[i] @ vectors.
    shift : (N, 2) int64

    Raises
    ------
    ValueError
        When the operation is no symmetry of the lattice.
    """
    inverse = np.linalg.inv(lattice.vectors)
    moved = lattice.positions @ operation.T
    tree = cKDTree(_wrapped(lattice.positions, inverse), boxsize=[1.0, 1.0, 0.0])
    partner = tree.query(_wrapped(moved, inverse))[1].astype(np.int64)
    difference = moved - lattice.positions[partner]
    fraction = difference[:, :2] @ inverse
    shift = np.rint(fraction)
    if (np.abs(fraction - shift).max(axis=1) + np.abs(difference[:, 2])).max() > 1e-6:
        raise ValueError("the operation is no symmetry of this lattice")
    return partner, shift.astype(np.int64)


def _wrapped(positions: Floats, inverse: NDArray[Any]) -> Floats:
    """In-plane fractions of the cell in [0, 1), and the height."""
    fraction = positions[:, :2] @ inverse
    fraction -= np.floor(fraction)
    return np.column_stack([np.where(fraction < 1, fraction, 0.0), positions[:, 2]])


def _angle(index: int) -> float:
    cells = 3 * index**2 + 3 * index
    return math.acos((cells + 0.5) / (cells + 1))


def _rotation(angle: float) -> Floats:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _pair_half_turn(lattice: Lattice) -> Lattice:
    partner, _ = site_images(lattice, np.diag([-1.0, -1.0, 1.0]))
    first = np.flatnonzero(np.arange(lattice.size) < partner)
    order = np.concatenate([first, partner[first]])
    return replace(
        lattice,
        positions=lattice.positions[order],
        layer=lattice.layer[order],
        sublattice=lattice.sublattice[order],
    )


def _strained(lattice: Lattice, strain: float, angle: float) -> Lattice:
    turn = _rotation(math.radians(angle))
    deformation = np.eye(2) + turn @ np.diag([strain, -_POISSON * strain]) @ turn.T
    positions = lattice.positions.copy()
    positions[:, :2] = positions[:, :2] @ deformation.T
    return replace(lattice, positions=positions, vectors=lattice.vectors @ deformation.T, deformation=deformation)
