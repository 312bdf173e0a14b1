"""The symmetries that the fast path leans on, on the complex Bloch matrix itself, at random k points."""

import numpy as np
import pytest

from stm_models.physics.moire.hopping import bloch_matrix, find_bonds, slater_koster
from stm_models.physics.moire.lattice import build, site_images
from stm_models.physics.moire.symmetry import point_group

LATTICE = build(3, 2.75)
BONDS = find_bonds(LATTICE)
HOPPING = slater_koster(BONDS.vector)
POINTS = np.random.default_rng(7).uniform(-1, 1, (3, 2)) @ LATTICE.reciprocal


def hamiltonian(k):
    return bloch_matrix(LATTICE.size, BONDS, HOPPING, k)


@pytest.mark.parametrize("k", POINTS)
def test_half_turn_with_time_reversal_conjugates_the_matrix(k):
    """H(k)[P, P] = conj H(k) to 1e-13, P the half turn C2z; what makes the real form possible."""
    partner, _ = site_images(LATTICE, np.diag([-1.0, -1.0, 1.0]))
    matrix = hamiltonian(k)
    assert np.abs(matrix[np.ix_(partner, partner)] - matrix.conj()).max() < 1e-13


@pytest.mark.parametrize("number", range(12))
def test_every_operation_carries_the_matrix_to_the_turned_point(number):
    """In the atomic gauge H(g k) is H(k) with its sites renamed, for all twelve g of D6 (7.2: to 1e-13)."""
    operation = point_group()[number]
    partner, _ = site_images(LATTICE, operation)
    for k in POINTS:
        turned = hamiltonian(operation[:2, :2] @ k)
        assert np.abs(turned[np.ix_(partner, partner)] - hamiltonian(k)).max() < 1e-13
