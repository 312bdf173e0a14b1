"""The commensurate cell against the literature's formulas and sisl's geometry."""

import math

import numpy as np
import pytest
import sisl
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.physics.moire.lattice import build, patch, site_images, twist_angle
from stm_models.physics.moire.symmetry import point_group

ATOMS = (28, 76, 148, 244, 364, 508, 676, 868, 1084)
ANGLES = (21.787, 13.174, 9.430, 7.341, 6.009, 5.086, 4.408, 3.890, 3.481)
TABLE = list(zip(range(1, 10), ATOMS, ANGLES, strict=True))


@pytest.mark.parametrize(("index", "atoms", "angle"), TABLE)
def test_table_of_commensurate_cells(index, atoms, angle):
    """N = 4T, cos(theta) = (T - 1/2)/T, |L|² = T with T = 3I² + 3I + 1."""
    lattice = build(index)
    first, second = lattice.vectors
    assert lattice.size == atoms
    assert twist_angle(index) == pytest.approx(angle, abs=5e-4)
    assert first @ first == pytest.approx(atoms / 4)
    assert first @ second == pytest.approx(atoms / 8)  # 60 degrees
    np.testing.assert_array_equal(np.unique(lattice.layer, return_counts=True)[1], [atoms / 2] * 2)
    np.testing.assert_array_equal(np.unique(lattice.sublattice, return_counts=True)[1], [atoms / 2] * 2)


@pytest.mark.parametrize("index", [1, 2, 5, 9])
def test_agrees_with_sisl(index):
    """Oracle: ``sisl.geom.bilayer(twist=(I, I+1))``, after Trambly de Laissardiere (2010)."""
    other, angle = sisl.geom.bilayer(bond=1 / math.sqrt(3), twist=(index, index + 1), ret_angle=True)
    lattice = build(index)
    assert lattice.size == other.na
    assert twist_angle(index) == pytest.approx(angle, abs=1e-9)
    ours, theirs = (v @ v.T for v in (lattice.vectors, np.array(other.cell)[:2, :2]))
    np.testing.assert_allclose(ours, theirs, atol=1e-9 * lattice.size)


@pytest.mark.parametrize("index", [1, 4])
def test_both_layers_are_whole_honeycombs_turned_by_theta(index):
    lattice = build(index)
    half = math.radians(twist_angle(index)) / 2
    vectors = np.array([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    for layer, angle in ((0, half), (1, -half)):
        cos, sin = math.cos(angle), math.sin(angle)
        back = np.array([[cos, -sin], [sin, cos]])
        here = lattice.layer == layer
        sign = np.where(lattice.sublattice[here] == 0, 1, -1)[:, None]
        cells = (lattice.positions[here, :2] @ back.T - sign * vectors.sum(axis=0) / 3) @ np.linalg.inv(vectors)
        np.testing.assert_allclose(cells, np.rint(cells), atol=1e-9)
        corners = lattice.vectors @ back.T @ np.linalg.inv(vectors)
        np.testing.assert_allclose(np.sort(np.abs(np.rint(corners[0]))), [index, index + 1])


@pytest.mark.parametrize("distance", [2.74, 3.35])
def test_layers_lie_at_the_distance_asked_for(distance):
    lattice = build(1, distance)
    heights = [lattice.positions[lattice.layer == layer, 2] for layer in (0, 1)]
    np.testing.assert_allclose(heights[1] - heights[0], distance / 2.46)
    np.testing.assert_allclose(heights[1], distance / 2.46 / 2)


@pytest.mark.parametrize("index", [1, 2, 3, 5])
def test_structure_has_the_point_group_d6_about_the_aa_centre(index):
    lattice = build(index, 2.8)
    for operation in point_group():
        partner, shift = site_images(lattice, operation)
        assert len(set(partner)) == lattice.size
        moved = lattice.positions @ operation.T
        moved[:, :2] -= shift @ lattice.vectors
        np.testing.assert_allclose(moved, lattice.positions[partner], atol=1e-9)


def test_second_half_of_the_sites_is_the_half_turn_of_the_first():
    lattice = build(3)
    half = lattice.size // 2
    partner, _ = site_images(lattice, np.diag([-1.0, -1.0, 1.0]))
    np.testing.assert_array_equal(partner, np.roll(np.arange(lattice.size), half))


def test_what_is_no_symmetry_is_refused():
    with pytest.raises(ValueError, match="no symmetry"):
        site_images(build(2), np.diag([1.0, -1.0, 1.0]))  # a mirror turns the twist around


def test_reciprocal_and_named_points():
    lattice = build(4)
    np.testing.assert_allclose(lattice.vectors @ lattice.reciprocal.T, 2 * math.pi * np.eye(2), atol=1e-12)
    points = lattice.high_symmetry()
    side = np.linalg.norm(lattice.reciprocal[0])
    assert np.linalg.norm(points["K"]) == pytest.approx(side / math.sqrt(3))
    assert np.linalg.norm(points["K'"]) == pytest.approx(side / math.sqrt(3))
    assert np.linalg.norm(points["M"]) == pytest.approx(side / 2)
    whole = (points["K"] + points["K'"]) @ np.linalg.inv(lattice.reciprocal)
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-12)  # K' is -K up to a reciprocal vector


@settings(max_examples=20, deadline=None)
@given(radius=st.floats(2.0, 30.0), index=st.integers(1, 4))
def test_patch_is_every_atom_of_the_disc_once(radius, index):
    lattice = build(index)
    points, sites = patch(lattice, radius)
    assert np.hypot(*points.T).max() < radius + 2e-6
    cells = (points - lattice.positions[sites, :2]) @ np.linalg.inv(lattice.vectors)
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-9)
    assert len(np.unique(np.column_stack([sites, np.rint(cells)]), axis=0)) == len(sites)
    density = lattice.size / abs(np.linalg.det(lattice.vectors))
    assert abs(len(sites) - density * math.pi * radius**2) < 6 * density * radius  # a rim, not a corner


def test_patch_keeps_the_sixfold_axis():
    """A parallelogram breaks C6 by 27 % of the DC peak (independent prototype), a disc does not."""
    lattice = build(3)
    points, sites = patch(lattice, 2 * float(np.linalg.norm(lattice.vectors[0])))
    turned = points @ point_group()[1][:2, :2].T
    partner, _ = site_images(lattice, point_group()[1])
    here = {(*np.rint(p * 1e6).astype(int), s) for p, s in zip(points, sites, strict=True)}
    there = {(*np.rint(p * 1e6).astype(int), partner[s]) for p, s in zip(turned, sites, strict=True)}
    assert here == there


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0,), "index I is 0"), ((-3,), "-3"), ((2, 0.0), "0.0 Å"), ((2, math.nan), "nan Å")],
)
def test_impossible_structures_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        build(*arguments)
