"""Images of other materials in a data set's field of view: what a model's novelty has to tell from its own."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.constants import BOND_LENGTH, INTERLAYER
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.physics.moire.hopping import bloch_matrix, find_bonds, hopping
from stm_models.physics.moire.lattice import Lattice
from stm_models.physics.moire.occupation import chemical_potential
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.structure import disc_radius

__all__ = ["UNTWISTED", "untwisted"]

UNTWISTED = ("monolayer", "bernal")
_MESH = 48


def untwisted(kind: str, config: HubbardSimulation, count: int, seed: int) -> NDArray[np.float32]:
    """Images (count, 1, n, n) of graphene without a twist, anyhow turned and shifted, free electrons.

    Parameters
    ----------
    kind : str
        ``monolayer``, or ``bernal``: a bilayer at the lower end of ``config.layer_distance``.
    config : HubbardSimulation
        Field of view, envelope, filling, bias and broadening; the filling counts electrons per graphene cell.
    count, seed : int
    """
    lattice = _monolayer() if kind == "monolayer" else _bernal(config.layer_distance[0] / 2.46)
    levels, weights = _bands(lattice, config.interlayer_scale)
    grid, radius = KGrid(config.image_size), disc_radius(config)
    rng = np.random.default_rng([seed, UNTWISTED.index(kind)])
    pictures = []
    for _ in range(count):
        filling = lattice.size + rng.uniform(*config.filling) / 50  # of a moiré cell as large as some 50 small ones
        level = chemical_potential(levels, np.full(len(levels), 1 / len(levels)), filling, config.temperature)
        energy = level + rng.uniform(*config.bias)
        width = config.broadening * rng.uniform(*config.broadening_spread)
        density = np.einsum("kn,kns->s", np.exp(-(((levels - energy) / width) ** 2) / 2), weights)
        angle, shift = rng.uniform(0, 2 * math.pi), rng.uniform(size=2) @ lattice.vectors
        points, sites = _patch(lattice, radius, angle, shift)
        seen = np.where(lattice.layer[sites] == lattice.layer.max(), 1.0, config.bottom_layer)
        envelope = np.exp(-(points**2).sum(axis=1) / (2 * (config.envelope * radius) ** 2))
        pictures.append(image(points[:, 0], points[:, 1], density[sites] * seen * envelope, grid))
    return np.stack(pictures)[:, None]


def _monolayer() -> Lattice:
    vectors = np.array([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    plane = np.array([vectors.sum(axis=0), -vectors.sum(axis=0)]) / 3
    return Lattice(0, np.column_stack([plane, np.zeros(2)]), np.zeros(2, np.int64), np.array([0, 1]), vectors)


def _bernal(distance: float) -> Lattice:
    below = _monolayer()
    moved = below.positions + np.array([0.0, BOND_LENGTH, distance or INTERLAYER])
    positions = np.concatenate([below.positions, moved])
    return Lattice(0, positions, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), below.vectors)


def _bands(lattice: Lattice, scale: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energies (k, N) in eV and the weight of each state on each site (k, N, N)."""
    bonds = find_bonds(lattice)
    values = hopping(bonds, scale)
    steps = np.arange(_MESH) / _MESH
    points = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2) @ lattice.reciprocal
    energies, vectors = np.linalg.eigh(np.stack([bloch_matrix(lattice.size, bonds, values, k) for k in points]))
    return energies, np.abs(vectors.transpose(0, 2, 1)) ** 2


def _patch(
    lattice: Lattice, radius: float, angle: float, shift: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    reach = math.ceil(2 * radius) + 2
    steps = np.arange(-reach, reach + 1)
    cells = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2) @ lattice.vectors
    points = (cells[:, None] + lattice.positions[None, :, :2] + shift).reshape(-1, 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points, sites = points @ turn.T, np.tile(np.arange(lattice.size), len(cells))
    inside = np.hypot(*points.T) < radius
    return points[inside], sites[inside]
