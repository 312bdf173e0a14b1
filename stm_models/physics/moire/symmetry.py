"""Point group of twisted bilayer graphene (D6, less under strain): what it does to sites, bonds and k points."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.hopping import Bonds
from stm_models.physics.moire.lattice import Lattice, site_images

__all__ = ["HALF_TURN", "KMesh", "Orbits", "k_mesh", "orbits", "point_group", "symmetries"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
HALF_TURN = np.diag([-1.0, -1.0, 1.0])
"""C2z: on k points it does what time reversal does."""


@dataclass(frozen=True)
class Orbits:
    """Classes of equivalent things under the point group.

    Attributes
    ----------
    label : (n,) int64
        Class of each thing.
    size : (classes,) int64
    first : (classes,) int64
        One member of each class.
    """

    label: Ints
    size: Ints
    first: Ints


@dataclass(frozen=True)
class KMesh:
    """Gamma-centred mesh of the moiré Brillouin zone, reduced by symmetry.

    Attributes
    ----------
    points : (nk, 2) float64, 1/a
    weights : (nk,) float64
        Share of each point's star; they sum to 1.
    """

    points: Floats
    weights: Floats


def point_group() -> list[Floats]:
    """Return the twelve operations of D6 as (3, 3) float64: six turns about z, and each after C2x."""
    c2x = np.diag([1.0, -1.0, -1.0])
    turns = []
    for step in range(6):
        cos, sin = math.cos(step * math.pi / 3), math.sin(step * math.pi / 3)
        turns.append(np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]))
    return turns + [turn @ c2x for turn in turns]


def symmetries(lattice: Lattice) -> list[Floats]:
    """Return those operations of D6 that map the crystal onto itself, each (3, 3) float64.

    All twelve without strain, {1, C2z} under strain, and both in-plane half turns besides where the strain
    lies along a twofold axis.
    """
    inverse = np.linalg.inv(lattice.vectors)
    kept = []
    for operation in point_group():
        turned = lattice.vectors @ operation[:2, :2].T @ inverse
        if np.abs(turned - np.rint(turned)).max() > 1e-9:
            continue
        try:
            site_images(lattice, operation)
        except ValueError:
            continue
        kept.append(operation)
    return kept


def orbits(lattice: Lattice, bonds: Bonds) -> tuple[Orbits, Orbits]:
    """Classes of sites and of bonds under the lattice's symmetries; a bond and its reverse are one class.

    Returns
    -------
    sites, bonds : Orbits

    Raises
    ------
    ValueError
        When the image of a bond is not among the bonds.
    """
    site_label = np.arange(lattice.size)
    keys = _keys(bonds.start, bonds.end, bonds.cell)
    order = np.argsort(keys)
    reverse = _find(keys, order, _keys(bonds.end, bonds.start, -bonds.cell))
    bond_label = np.minimum(np.arange(len(bonds.start)), reverse)
    inverse = np.linalg.inv(lattice.vectors)
    for operation in symmetries(lattice):
        partner, shift = site_images(lattice, operation)
        site_label = np.minimum(site_label, partner)
        turned = np.rint(bonds.cell @ lattice.vectors @ operation[:2, :2].T @ inverse).astype(np.int64)
        cell = turned + shift[bonds.end] - shift[bonds.start]
        image = _find(keys, order, _keys(partner[bonds.start], partner[bonds.end], cell))
        bond_label = np.minimum(bond_label, np.minimum(image, reverse[image]))
    return _classes(site_label), _classes(bond_label)


def k_mesh(lattice: Lattice, count: int, operations: Iterable[Floats] | None = None) -> KMesh:
    """Gamma-centred ``count`` x ``count`` mesh, reduced to one point per star.

    Parameters
    ----------
    lattice : Lattice
    count : int
    operations : iterable of (3, 3) float64, optional
        The group whose stars are reduced: by default all symmetries of the lattice (C2z among them, so k and
        -k are one star); none leaves the whole mesh.
    """
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count), indexing="ij"), axis=-1).reshape(-1, 2)
    label = np.arange(count * count)
    to_fraction = np.linalg.inv(lattice.reciprocal)
    for operation in symmetries(lattice) if operations is None else operations:
        turned = grid @ lattice.reciprocal @ operation[:2, :2].T @ to_fraction
        whole = np.rint(turned).astype(np.int64) % count
        label = np.minimum(label, whole[:, 0] * count + whole[:, 1])
    classes = _classes(label)
    points = grid[classes.first] @ lattice.reciprocal / count
    return KMesh(points, classes.size / count**2)


def _keys(start: Ints, end: Ints, cell: Ints) -> Ints:
    return ((start * 4096 + end) * 64 + cell[:, 0] + 32) * 64 + cell[:, 1] + 32


def _find(keys: Ints, order: Ints, wanted: Ints) -> Ints:
    place = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)]
    if not np.array_equal(keys[place], wanted):
        raise ValueError("the bonds are not closed under the point group: the image of one is missing")
    return place


def _classes(label: Ints) -> Orbits:
    first, inverse, size = np.unique(label, return_inverse=True, return_counts=True)
    return Orbits(inverse.reshape(-1).astype(np.int64), size.astype(np.int64), first.astype(np.int64))
