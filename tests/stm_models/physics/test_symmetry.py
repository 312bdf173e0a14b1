"""What D6 does to sites, bonds and k points, against brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.physics.moire.hopping import find_bonds, slater_koster
from stm_models.physics.moire.lattice import build, site_images
from stm_models.physics.moire.symmetry import k_mesh, orbits, point_group

LATTICE = build(2, 2.75)
SHELLS = [np.array(cell) for cell in itertools.product(range(-3, 4), repeat=2)]


def test_point_group_is_a_group_of_twelve_rotations():
    group = point_group()
    assert len(group) == 12
    for a, b in itertools.product(group, repeat=2):
        assert sum(np.allclose(a @ b, c) for c in group) == 1
    np.testing.assert_allclose([np.linalg.det(a) for a in group], 1)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 14))
def test_mesh_weights_are_shares(count):
    mesh = k_mesh(LATTICE, count)
    assert math.isclose(mesh.weights.sum(), 1, abs_tol=1e-14)
    assert np.all(mesh.weights > 0)
    assert len(mesh.points) == len(mesh.weights) <= count**2
    stars = mesh.weights * count**2
    np.testing.assert_allclose(stars, np.rint(stars), atol=1e-9)
    assert stars.max() < 12.5  # no star has more members than the group has operations


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 14), seed=st.integers(0, 2**32 - 1))
def test_reduced_mesh_sums_symmetric_functions_like_the_whole_one(count, seed):
    """A symmetric function of k is a sum over moiré vectors R with one coefficient per star of R."""
    generator = np.random.default_rng(seed)
    shells = np.array(SHELLS) @ LATTICE.vectors
    coefficients = generator.normal(size=len(shells))

    def function(points):
        result = np.zeros(len(points))
        for operation in point_group():
            result += np.cos(points @ (shells @ operation[:2, :2].T).T) @ coefficients
        return result

    whole, reduced = k_mesh(LATTICE, count, operations=()), k_mesh(LATTICE, count)
    assert len(whole.points) == count**2
    expected = whole.weights @ function(whole.points)
    assert reduced.weights @ function(reduced.points) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("count", "points"), [(1, 1), (2, 2), (3, 3), (4, 4), (6, 7)])
def test_size_of_the_reduced_mesh(count, points):
    """Counted by hand; K and K' are one star, as C2z exchanges them."""
    assert len(k_mesh(LATTICE, count).points) == points


@pytest.mark.parametrize("index", [1, 2, 3])
def test_classes_hold_exactly_the_images_of_their_members(index):
    lattice = build(index, 2.75)
    bonds = find_bonds(lattice)
    sites, classes = orbits(lattice, bonds)
    assert sites.size.sum() == lattice.size
    assert classes.size.sum() == len(bonds.start)
    np.testing.assert_array_equal(sites.label[sites.first], np.arange(len(sites.size)))
    np.testing.assert_array_equal(classes.label[classes.first], np.arange(len(classes.size)))
    # Sites: the orbit of each first member, and nothing else, carries its label.
    images = np.array([site_images(lattice, operation)[0] for operation in point_group()])
    for number, first in enumerate(sites.first):
        assert set(images[:, first]) == set(np.flatnonzero(sites.label == number))
    # Bonds: what the symmetry keeps is one number per class, and a class has no more than 24 members.
    assert classes.size.max() <= 24
    for values in (bonds.length, slater_koster(bonds.vector), np.abs(bonds.vector[:, 2])):
        spread = values - values[classes.first][classes.label]
        assert np.abs(spread).max() < 1e-10


def test_bond_classes_by_brute_force():
    lattice = build(1, 2.75)
    bonds = find_bonds(lattice, 1.2)
    _, classes = orbits(lattice, bonds)
    middle = lattice.positions[bonds.start] + bonds.vector / 2
    inverse = np.linalg.inv(lattice.vectors)

    def key(point, vector):
        fraction = point[:2] @ inverse
        fraction = fraction - np.floor(fraction + 1e-6)
        side = vector if tuple(np.round(vector, 5) + 0.0) > tuple(np.round(-vector, 5) + 0.0) else -vector
        return (*np.round(fraction, 5) + 0.0, *np.round(point[2:], 5) + 0.0, *np.round(side, 5) + 0.0)

    names = [key(m, v) for m, v in zip(middle, bonds.vector, strict=True)]
    for number, first in enumerate(classes.first):
        star = {key(g @ middle[first], g @ bonds.vector[first]) for g in point_group()}
        assert {names[b] for b in np.flatnonzero(classes.label == number)} == star
