"""The branch 'collinear' on the honeycomb Hubbard model, whose mean field the literature knows."""

import numpy as np
import pytest

from stm_models.physics.moire import branches
from stm_models.physics.moire.hopping import find_bonds, hopping
from stm_models.physics.moire.lattice import Lattice

STRETCH = 2.6  # times graphene: only nearest neighbours lie within the hopping's reach of 2.5 a


@pytest.fixture(scope="module")
def honeycomb(graphene):
    positions = graphene.positions * STRETCH
    return Lattice(0, positions, graphene.layer, graphene.sublattice, graphene.vectors * STRETCH)


def moments(lattice, ratio, count, start):
    """Magnetic moment of each site at U/t = ratio."""
    values = hopping(find_bonds(lattice), 1.0)
    t = abs(values[0])
    assert len(values) == 6
    np.testing.assert_allclose(np.abs(values), t)
    branch = branches.create("collinear", lattice, k_count=count, temperature=1e-4 * t, dielectric=None)
    solution = branch.solve(ratio * t, 0.0, start, tolerance=1e-7, max_iterations=200)
    assert solution.converged
    up, down = branch.spin_density(solution.arrays)
    return up - down, solution.free_energy / t


@pytest.mark.parametrize(
    ("ratio", "expected", "count"),
    [(2.2, 0.0, 31), (2.3, 0.063, 61), (2.4, 0.143, 31), (3.0, 0.444, 31), (4.0, 0.672, 31)],
)
def test_antiferromagnet_beyond_the_critical_interaction(honeycomb, ratio, expected, count):
    """An independent prototype: m = 0 up to U/t = 2.2, then .063 (2.3), .143 (2.4), .444 (3), .672 (4).

    Sorella and Tosatti, EPL 19, 699 (1992): the mean field orders at U/t = 2.23.
    """
    moment, _ = moments(honeycomb, ratio, count, "sublattice")
    assert moment[0] == pytest.approx(-moment[1], abs=1e-5)
    assert abs(moment[0]) == pytest.approx(expected, abs=1e-3)


def test_antiferromagnet_lies_below_the_paramagnet(honeycomb):
    """At U/t = 4 order lowers the free energy, and the paramagnet is a state of its own."""
    ordered, below = moments(honeycomb, 4.0, 15, "sublattice")
    even, above = moments(honeycomb, 4.0, 15, "pm")
    assert np.abs(even).max() < 1e-9 < 0.5 < np.abs(ordered).min()
    assert below < above - 0.1
