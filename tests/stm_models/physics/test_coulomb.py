"""Gate-screened Coulomb interaction: closed limits and the lattice sum by brute force."""

import math

import numpy as np
import pytest
from scipy.special import k0

from stm_models.physics.moire.coulomb import hartree_rows, screened
from stm_models.physics.moire.lattice import build

XI = 10 / 0.246  # 10 nm in a
COULOMB = 14.3996 / 2.46


def test_nearest_neighbours_repel_by_one_electronvolt():
    """Independent prototype: V(a_CC) = 0.994 eV at eps = 10 and gates 10 nm apart."""
    assert screened(np.array([1 / math.sqrt(3)]), 10.0, 10.0)[0] == pytest.approx(0.994, abs=5e-4)


def test_short_distance_is_bare_coulomb_less_the_image_energy():
    """r << xi: V = e²/(4 pi eps0 eps) [1/r - 2 ln(2)/xi], from the alternating harmonic series."""
    r = np.array([0.2, 0.5, 1.0])
    expected = COULOMB / 4.0 * (1 / r - 2 * math.log(2) / XI)
    np.testing.assert_allclose(screened(r, 4.0, 10.0), expected, rtol=1e-4)


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_long_distance_decays_exponentially(ratio):
    """r >> xi: by Poisson's sum V ~ 4/xi sum_m K0((2m+1) pi r/xi), led by sqrt(8/(r xi)) exp(-pi r/xi).

    Sixty images leave 2e-6 eV of the 3e-4 eV at the cut-off.
    """
    r = ratio * XI
    exact = COULOMB / 10 * 4 / XI * sum(k0((2 * m + 1) * math.pi * ratio) for m in range(20))
    assert screened(np.array([r]), 10.0, 10.0)[0] == pytest.approx(exact, abs=3e-6)


def test_dielectric_and_gates_screen():
    r = np.linspace(0.5, 40, 50)
    v = screened(r, 10.0, 10.0)
    np.testing.assert_allclose(screened(r, 5.0, 10.0), 2 * v)
    assert np.all(screened(r, 10.0, 20.0) > v)
    assert np.all(np.diff(v) < 0)
    assert np.all(v > 0)


@pytest.mark.parametrize("gate", [1.0, 4.0])
def test_lattice_sum_by_brute_force(gate):
    lattice = build(1, 2.75)
    xi = gate / 0.246
    rows = np.array([0, 5, 20])
    result = hartree_rows(lattice, rows, 10.0, gate)
    for row, i in enumerate(rows):
        for j in (0, 3, 5, 27):
            total = 0.0
            for m in range(-30, 31):
                for n in range(-30, 31):
                    d = lattice.positions[j] - lattice.positions[i]
                    d[:2] += np.array([m, n]) @ lattice.vectors
                    if np.hypot(d[0], d[1]) <= 1.5 * xi and (i != j or m or n):
                        total += screened(np.linalg.norm(d, keepdims=True), 10.0, gate)[0]
            assert result[row, j] == pytest.approx(total, rel=2e-5)


def test_lattice_sum_is_symmetric():
    lattice = build(2, 2.75)
    matrix = hartree_rows(lattice, np.arange(lattice.size), 10.0, 10.0)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-9)
    assert matrix.min() > 0
