"""Oracle: sisl's commensurate bilayer, atom by atom, and the spectrum of sisl's Hamiltonian on it."""

import math

import numpy as np
import pytest
import sisl
from scipy.spatial import cKDTree

from stm_models.physics.moire.hopping import bloch_matrix, find_bonds, slater_koster
from stm_models.physics.moire.lattice import build

BOND = 1 / math.sqrt(3)
DISTANCE = 3.35 / 2.46


def bilayer(index, stacking="AB"):
    """Twist one layer of sisl's Bernal bilayer about an A atom of the other: a hexagon centre of the first."""
    return sisl.geom.bilayer(bond=BOND, twist=(index, index + 1), stacking=stacking, separation=DISTANCE)


def rotation(angle):
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def farthest(points, others, vectors):
    """Largest distance of any of ``points`` to the nearest of ``others``, both repeated by ``vectors``."""
    copies = np.concatenate([others + np.array([m, n]) @ vectors for m in (-1, 0, 1) for n in (-1, 0, 1)])
    fraction = points @ np.linalg.inv(vectors)
    return cKDTree(copies).query((fraction - np.floor(fraction + 1e-7)) @ vectors)[0].max()


def mismatch(lattice, geometry):
    """Lay sisl's lower layer on ours in every way, and say how far the best upper layer then lies from ours."""
    cell, places = np.array(geometry.cell)[:2, :2], np.array(geometry.xyz)
    lower = places[:, 2] < places[:, 2].mean()
    ours = [lattice.positions[lattice.layer == layer, :2] for layer in (0, 1)]
    aligned = math.atan2(*lattice.vectors[0][::-1]) - math.atan2(*cell[0][::-1])
    found = []
    for step in range(6):
        turned = places[:, :2] @ rotation(aligned + step * math.pi / 3).T
        for anchor in ours[0]:
            moved = turned + anchor - turned[lower][0]
            if farthest(moved[lower], ours[0], lattice.vectors) < 1e-9:
                found.append(farthest(moved[~lower], ours[1], lattice.vectors))
    return min(found)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_every_atom_lies_where_sisl_has_it(index):
    """The same structure up to a rotation and a translation, to 1e-12 a."""
    lattice, geometry = build(index), bilayer(index)
    heights = np.unique(np.round(np.array(geometry.xyz)[:, 2], 9))
    assert np.ptp(heights) == pytest.approx(np.ptp(lattice.positions[:, 2]))
    assert mismatch(lattice, geometry) < 1e-12


@pytest.mark.parametrize("stacking", ["AA", "BA"])
def test_another_twist_axis_is_another_structure(stacking):
    """About a common atom the point group is D3, not D6: the layers are shifted by a/sqrt(3 T).

    Mele, PRB 81, 161405 (2010): commensurate structures with even and odd sublattice exchange.
    """
    assert mismatch(build(2), bilayer(2, stacking)) == pytest.approx(1 / math.sqrt(3 * 19), abs=1e-9)


@pytest.mark.parametrize("index", [1, 2])
def test_spectrum_of_sisls_hamiltonian(index):
    """Neighbours and Bloch sums by sisl, Moon and Koshino's formula by hand: every band to 1e-10 eV."""
    lattice, geometry = build(index), bilayer(index)
    model = sisl.Hamiltonian(geometry)
    reach = math.hypot(2.5, DISTANCE) + 1e-6
    model.set_nsc([7, 7, 1])
    whole = model.geometry
    for atom in range(whole.na):
        near, between, distance = whole.close(atom, R=reach, ret_xyz=True, ret_rij=True)
        d = between - whole.xyz[atom]
        kept = (np.hypot(d[:, 0], d[:, 1]) <= 2.5 + 1e-9) & (distance > 1e-9)
        r, height2 = distance[kept], (d[kept, 2] / distance[kept]) ** 2
        model[atom, near[kept]] = -2.7 * np.exp(-(r - BOND) / 0.184) * (1 - height2) + 0.48 * (
            np.exp(-(r - DISTANCE) / 0.184) * height2
        )
    bonds = find_bonds(lattice)
    for fraction in ([0.0, 0.0], [0.13, 0.37]):
        k = np.array(fraction) @ lattice.reciprocal
        ours = np.linalg.eigvalsh(bloch_matrix(lattice.size, bonds, slater_koster(bonds.vector), k))
        np.testing.assert_allclose(ours, model.eigh([*fraction, 0.0]), atol=1e-10)
