"""Order parameters: their definitions on states made by hand."""

import math

import numpy as np
import pytest

from stm_models.physics.moire.branches import create
from stm_models.physics.moire.hopping import find_bonds
from stm_models.physics.moire.lattice import build
from stm_models.physics.moire.order import bond_current, charge_gap, moments, nearest_bonds, nematicity

LATTICE = build(2, 2.75)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("even", (1, 0, 0)),
        ("staggered", (0, 1, 0)),
        ("sublattice", (0, 0, 1)),
    ],
)
def test_each_pattern_has_one_moment(pattern, expected):
    sublattice, layer = 1 - 2 * LATTICE.sublattice, 1 - 2 * LATTICE.layer
    shape = {"even": np.ones(LATTICE.size), "staggered": sublattice * layer, "sublattice": sublattice}[pattern]
    density = 0.5 + 0.1 * np.array([shape, -shape])
    *sums, largest = moments(LATTICE, density)
    np.testing.assert_allclose(sums, 0.2 * LATTICE.size * np.array(expected), atol=1e-12)
    assert largest == pytest.approx(0.2)


def test_one_spin_channel_has_no_moment():
    assert moments(LATTICE, np.random.default_rng(0).uniform(size=(1, LATTICE.size))) == (0, 0, 0, 0)


def test_nearest_bonds_are_three_per_site():
    for lattice in (LATTICE, build(2, 2.75, 0.05, 20.0)):
        bonds = find_bonds(lattice)
        near = nearest_bonds(bonds)
        np.testing.assert_array_equal(np.bincount(bonds.start[near], minlength=lattice.size), 3)
        assert np.all(lattice.layer[bonds.start[near]] == lattice.layer[bonds.end[near]])
        assert np.all(lattice.sublattice[bonds.start[near]] != lattice.sublattice[bonds.end[near]])


def test_nematicity_by_hand():
    """Three bonds 120 degrees apart: none when equal, all when one is left, 1/4 when one is doubled."""
    angles = np.radians([10.0, 130.0, 250.0])
    assert nematicity(angles, np.ones(3)) == pytest.approx(0, abs=1e-12)
    assert nematicity(angles, np.array([1.0, 0, 0])) == pytest.approx(1)
    assert nematicity(angles, np.array([2.0, 1, 1])) == pytest.approx(0.25)
    assert nematicity(angles + math.pi, np.array([2.0, 1, 1])) == pytest.approx(0.25)


def test_nematicity_knows_no_first_end_of_a_bond():
    """Currents that keep the threefold axis are none, whichever end a bond is listed from."""
    angles, orders = np.radians([10.0, 130.0, 250.0]), np.full(3, 0.5 + 0.2j)
    turned, other = angles + np.array([0, math.pi, 0]), np.array([0.5 + 0.2j, 0.5 - 0.2j, 0.5 + 0.2j])
    assert nematicity(turned, other) == pytest.approx(0, abs=1e-12)
    assert nematicity(angles, orders) == pytest.approx(0, abs=1e-12)
    orders[1], other[1] = 0.8 + 0.1j, 0.8 - 0.1j
    assert nematicity(turned, other) == pytest.approx(nematicity(angles, orders))


def test_current_is_the_imaginary_part():
    assert bond_current(np.array([0.3, 0.2])) == 0
    assert bond_current(np.array([0.3 - 0.2j, 0.2 + 0.1j])) == pytest.approx(0.2)


def test_gap_by_hand():
    bands = np.array([[-1.0, -0.3, 0.2, 1.0], [-1.1, -0.2, 0.1, 0.9]])  # two k points
    assert charge_gap(bands, 2, 4) == pytest.approx(0.3)
    assert charge_gap(bands, 2, 5) == 0  # half-filled: both spins of one band
    assert charge_gap(bands, 2, 2) == pytest.approx(0.7)
    assert charge_gap(bands, 2, 0) == 0
    overlapping = np.array([[-1.0, 0.3], [-0.5, 0.0]])
    overlapping[0, 0] = 0.1
    assert charge_gap(overlapping, 2, 2) == 0
    split = np.concatenate([bands - 0.5, bands + 0.5])  # spin up below spin down
    assert charge_gap(split, 2, 5) == pytest.approx(0.1)


def test_strain_makes_the_symmetric_state_nematic_in_proportion():
    """No strain, no nematicity; a little strain, in proportion to it."""
    result = []
    for strain in (0.0, 0.001, 0.002):
        branch = create("sym", build(2, 2.75, strain, 20.0), k_count=2, temperature=0.02, dielectric=10.0)
        result.append(branch.order(branch.solve(3.0, 0.0, "bands")).nematicity)
    assert result[0] < 1e-12
    assert result[1] > 1e-4
    assert result[2] == pytest.approx(2 * result[1], rel=0.02)


def test_starts_of_the_collinear_branch_have_the_moments_of_their_names():
    branch = create("collinear", LATTICE, k_count=1, temperature=0.02, dielectric=None)
    rng = np.random.default_rng(0)
    found = {start: moments(LATTICE, branch.spin_density(branch._initial(76.4, start, rng))) for start in branch.starts}
    full = 0.3 * LATTICE.size
    np.testing.assert_allclose(found["pm"], 0, atol=1e-12)
    np.testing.assert_allclose(found["fm"], [full, 0, 0, 0.3], atol=1e-9)
    np.testing.assert_allclose(found["af"], [0, full, 0, 0.3], atol=1e-9)
    np.testing.assert_allclose(found["sublattice"], [0, 0, full, 0.3], atol=1e-9)
    assert found["stripe"][0] == pytest.approx(0, abs=1e-9)
    assert found["random"][3] == pytest.approx(0.3)
    for start in branch.starts:
        assert branch._initial(76.4, start, rng)["density"].sum() == pytest.approx(76.4)


def test_exchange_sees_a_magnetic_start():
    """Where U is small only the bond orders carry a moment on: they start as different as the spins."""
    branch = create("collinear", LATTICE, k_count=1, temperature=0.02, dielectric=10.0)
    apart = {start: np.ptp(branch._initial(76.4, start, None)["bond_order"], axis=0).max() for start in ("pm", "fm")}
    assert apart["pm"] < 1e-12
    assert apart["fm"] > 0.01
