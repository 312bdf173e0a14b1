"""Uniaxial strain of the whole bilayer: geometry, the symmetry that is left, and what rests on it."""

import math

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.physics.moire import plain
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.coulomb import hartree_matrix, hartree_rows
from stm_models.physics.moire.hopping import bloch_matrix, find_bonds, hopping
from stm_models.physics.moire.lattice import build, patch, site_images
from stm_models.physics.moire.symmetry import HALF_TURN, k_mesh, orbits, symmetries

STRAINS = [(0.0, 0.0, 12), (0.01, 0.0, 4), (0.01, 30.0, 4), (-0.02, 90.0, 4), (0.01, 17.0, 2), (0.05, 45.0, 2)]


@pytest.mark.parametrize(("angle", "strain"), [(0.0, 0.02), (37.0, 0.02), (90.0, -0.01)])
def test_lengths_change_along_and_across(angle, strain):
    """Along the strain by its amount, across by -.16 of it, between the layers not at all."""
    before, after = build(2, 2.75), build(2, 2.75, strain, angle)
    along = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    across = np.array([-along[1], along[0]])
    for old, new in ((before.positions[:, :2], after.positions[:, :2]), (before.vectors, after.vectors)):
        np.testing.assert_allclose(new @ along, (1 + strain) * (old @ along), atol=1e-12)
        np.testing.assert_allclose(new @ across, (1 - 0.16 * strain) * (old @ across), atol=1e-12)
    np.testing.assert_array_equal(after.positions[:, 2], before.positions[:, 2])
    np.testing.assert_array_equal(after.layer, before.layer)
    np.testing.assert_allclose(after.vectors @ after.reciprocal.T, 2 * math.pi * np.eye(2), atol=1e-12)


@pytest.mark.parametrize(("strain", "angle", "count"), STRAINS)
def test_operations_that_are_left(strain, angle, count):
    """D6 without strain, D2 where it lies along a twofold axis (every 30 degrees), else C2z alone."""
    lattice = build(2, 2.75, strain, angle)
    kept = symmetries(lattice)
    assert len(kept) == count
    assert any(np.allclose(operation, HALF_TURN) for operation in kept)
    half = lattice.size // 2
    np.testing.assert_array_equal(site_images(lattice, HALF_TURN)[0], np.roll(np.arange(lattice.size), half))


@pytest.mark.parametrize(("strain", "angle", "count"), STRAINS)
def test_bonds_stay_the_same_and_fall_into_classes(strain, angle, count):
    bonds, before = find_bonds(build(2, 2.75, strain, angle)), find_bonds(build(2, 2.75))
    for name in ("start", "end", "cell"):
        np.testing.assert_array_equal(getattr(bonds, name), getattr(before, name))
    np.testing.assert_allclose(bonds.plane, before.plane, atol=1e-12)
    sites, classes = orbits(build(2, 2.75, strain, angle), bonds)
    assert classes.size.max() <= 2 * count
    assert sites.size.max() <= count
    spread = bonds.length - bonds.length[classes.first][classes.label]
    assert np.abs(spread).max() < 1e-10


@pytest.mark.parametrize(("strain", "angle", "count"), STRAINS)
def test_spectrum_has_the_symmetry_that_is_left(strain, angle, count):
    lattice = build(1, 2.75, strain, angle)
    bonds = find_bonds(lattice)
    k = np.array([0.31, 0.83])

    def spectrum(point):
        return np.linalg.eigvalsh(bloch_matrix(lattice.size, bonds, hopping(bonds), point))

    for operation in symmetries(lattice):
        np.testing.assert_allclose(spectrum(operation[:2, :2] @ k), spectrum(k), atol=1e-11)
    if count < 12:
        turn = np.array([[0.5, -math.sqrt(3) / 2], [math.sqrt(3) / 2, 0.5]])
        assert np.abs(spectrum(turn @ k) - spectrum(k)).max() > 1e-4


@pytest.mark.parametrize(("strain", "angle", "count"), STRAINS)
def test_reduced_mesh_sums_the_bands_like_the_whole_one(strain, angle, count):
    lattice = build(1, 2.75, strain, angle)
    bonds = find_bonds(lattice)
    sums = []
    for mesh in (k_mesh(lattice, 4), k_mesh(lattice, 4, ())):
        bands = [np.linalg.eigvalsh(bloch_matrix(lattice.size, bonds, hopping(bonds), k)) for k in mesh.points]
        sums.append(mesh.weights @ np.array(bands) ** 2)
    np.testing.assert_allclose(sums[0], sums[1], atol=1e-9)


@pytest.mark.parametrize(("strain", "angle"), [(0.0, 0.0), (0.02, 17.0)])
def test_hartree_matrix_from_one_row_per_class(strain, angle):
    lattice = build(2, 2.75, strain, angle)
    expected = hartree_rows(lattice, np.arange(lattice.size), 10.0, 4.0)
    np.testing.assert_allclose(hartree_matrix(lattice, 10.0, 4.0), expected, rtol=1e-9)


@pytest.mark.parametrize("angle", [17.0, 30.0])
def test_fast_path_agrees_with_the_plain_solver_under_strain(angle):
    lattice = build(1, 2.75, 0.03, angle)
    options = {"k_count": 3, "temperature": 0.05, "dielectric": 10.0}
    field = create("sym", lattice, **options)
    fast = field.solve(3.0, 0.1, "bands", tolerance=1e-10)
    slow = plain.solve(lattice, 3.0, 0.1, mixing=0.6, tolerance=1e-10, **options)
    assert fast.converged
    assert slow.converged
    np.testing.assert_allclose(field.spin_density(fast.arrays)[0], slow.density, atol=5e-9)
    np.testing.assert_allclose(fast.arrays["bond_order"][field.bonds.label], slow.bond_order.real, atol=5e-9)


def test_states_change_smoothly_with_strain():
    """No bond appears or vanishes at a cut-off: the energy is a smooth function of strain through zero."""
    energies = []
    for strain in (-0.012, -0.006, 0.0, 0.006, 0.012):
        field = create("sym", build(1, 2.75, strain, 17.0), k_count=2, temperature=0.05, dielectric=10.0)
        energies.append(field.solve(2.0, 0.0, "bands", tolerance=1e-9).energy)
    fourth = np.abs(np.diff(energies, 4))[0]
    assert fourth < 1e-3 * np.abs(np.diff(energies, 2)).max()


def test_patch_of_a_strained_crystal_is_whole():
    lattice = build(1, 2.75, 0.1, 40.0)
    points, sites = patch(lattice, 12.0)
    layer = lattice.layer[sites]
    assert len({(*np.rint(p * 1e6).astype(int), z) for p, z in zip(points, layer, strict=True)}) == len(points)
    density = lattice.size / abs(np.linalg.det(lattice.vectors))
    assert len(sites) == pytest.approx(density * math.pi * 12**2, rel=0.03)


@pytest.mark.parametrize(("strain", "angle"), [(0.3, 0.0), (math.nan, 0.0), (0.01, math.inf)])
def test_impossible_strain_is_refused(strain, angle):
    with pytest.raises(InputError, match="strain"):
        build(2, 2.75, strain, angle)
