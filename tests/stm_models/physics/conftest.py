"""Structures and solutions that several tests of the moiré simulator look at."""

import math

import numpy as np
import pytest

from stm_models.physics.moire.branches import create
from stm_models.physics.moire.lattice import Lattice, build


@pytest.fixture(scope="session")
def graphene():
    """One layer of graphene: two sites, basis at +-(a1 + a2)/3."""
    vectors = np.array([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    offset = np.append(vectors.sum(axis=0) / 3, 0.0)
    return Lattice(0, np.array([offset, -offset]), np.zeros(2, int), np.arange(2), vectors)


@pytest.fixture(scope="session")
def hubbard_field():
    """I=5 at 2.74 Å without long-range Coulomb interaction."""
    return create("sym", build(5, 2.74), k_count=3, temperature=0.01, dielectric=None)


@pytest.fixture(scope="session")
def coulomb_field():
    """I=5 at 2.74 Å, eps = 10: the quick preset's structure."""
    return create("sym", build(5, 2.74), k_count=3, temperature=0.01, dielectric=10.0)
