"""Local density of states and its Fourier sum: normalisation, symmetry, what lies at k = 0."""

import math

import numpy as np
import pytest
from scipy.special import expit

from stm_models.physics.moire.branches import create
from stm_models.physics.moire.fourier import KGrid, direct_transform, image
from stm_models.physics.moire.lattice import build, patch, site_images
from stm_models.physics.moire.symmetry import point_group


@pytest.fixture(scope="module", params=[None, 10.0], ids=["hubbard", "coulomb"])
def state(request):
    field = create("sym", build(3, 2.75), k_count=3, temperature=0.02, dielectric=request.param)
    return field, field.solve(3.0, 0.2, "bands", tolerance=1e-9)


def one(field, solution, bias, broadening):
    return field.ldos(solution, np.array([bias]), np.array([broadening]))[0]


def direct_sum(points, weights, k):
    """F at any wave vectors (K, 2): the sum's definition."""
    return np.exp(-1j * k @ points.T) @ weights


def test_integral_is_two_electrons_per_site(state):
    """int LDOS dE = 2, the spin-summed weight of one orbital."""
    field, solution = state
    eta, step = 0.05, 0.025
    low, high = solution.energies.min() - 0.6, solution.energies.max() + 0.6
    grid = np.arange(low, high, step) - solution.chemical_potential
    total = field.ldos(solution, grid, np.full(len(grid), eta)).sum(axis=0) * step
    np.testing.assert_allclose(total, 2, atol=1e-6)


def test_occupied_part_is_the_density(state):
    """A broad Fermi function over a narrow LDOS counts the electrons: int LDOS f dE = 2 n."""
    field, solution = state
    eta = 0.004
    grid = np.arange(solution.energies.min() - 0.1, solution.energies.max() + 0.1, eta / 2)
    grid -= solution.chemical_potential
    spectrum = field.ldos(solution, grid, np.full(len(grid), eta))
    count = expit(-grid / field.temperature) @ spectrum * eta / 2
    np.testing.assert_allclose(count, 2 * field.site_values(solution.arrays["density"]), atol=2e-3)


def test_many_energies_at_once_equal_one_by_one(state):
    field, solution = state
    bias, broadening = np.array([-0.3, 0.0, 0.01]), np.array([0.03, 0.02, 0.3])
    together = field.ldos(solution, bias, broadening)
    assert together.shape == (3, field.lattice.size)
    assert together.min() > 0
    for row, e, eta in zip(together, bias, broadening, strict=True):
        np.testing.assert_allclose(row, one(field, solution, e, eta), rtol=1e-12)


def test_density_and_ldos_have_the_crystals_symmetry(state):
    """n is C6 symmetric to 2e-11; so is the LDOS."""
    field, solution = state
    values = np.array([field.site_values(solution.arrays["density"]), one(field, solution, 0.0, 0.03)])
    for operation in point_group():
        partner, _ = site_images(field.lattice, operation)
        np.testing.assert_allclose(values[:, partner], values, atol=2e-11)


@pytest.fixture(scope="module")
def disc(state):
    field, solution = state
    radius = 2 * float(np.linalg.norm(field.lattice.vectors[0]))
    points, sites = patch(field.lattice, radius)
    envelope = np.exp(-(points**2).sum(axis=1) / (2 * (0.4 * radius) ** 2))
    return points, one(field, solution, 0.0, 0.03)[sites] * envelope


def test_transform_has_sixfold_and_inversion_symmetry(disc):
    """F symmetric to 1e-9 of the DC peak under C6 and inversion, by the direct sum."""
    points, weights = disc
    k = np.random.default_rng(1).uniform(-8, 8, (40, 2))
    here = direct_sum(points, weights, k)
    for operation in point_group():
        there = direct_sum(points, weights, k @ operation[:2, :2].T)
        np.testing.assert_allclose(there, here, atol=1e-9 * weights.sum())
    np.testing.assert_allclose(here.imag, 0, atol=1e-9 * weights.sum())
    assert np.ptp(np.abs(here)) > 1e-4 * weights.sum()


def test_bragg_peaks_lie_where_graphene_has_them(disc):
    """The first Bragg vector 4 pi/sqrt(3) of each layer, turned by half the twist, stands out of its ring."""
    points, weights = disc
    angles = np.radians(np.linspace(60, 120, 601))
    ring = 4 * math.pi / math.sqrt(3) * np.column_stack([np.cos(angles), np.sin(angles)])
    strength = np.abs(direct_sum(points, weights, ring))
    twist = np.degrees(angles[strength.argmax()]) - 90
    assert abs(abs(twist) - 9.430 / 2) < 0.6


@pytest.mark.parametrize("n", [32, 33])
def test_value_at_zero_is_the_sum_of_the_weights(disc, n):
    """The image is |F| over F(0) = sum w ldos; an odd grid shows that 1 at its centre."""
    points, weights = disc
    grid = KGrid(n)
    assert direct_sum(points, weights, np.zeros((1, 2)))[0] == pytest.approx(weights.sum())
    picture = image(points[:, 0], points[:, 1], weights, grid)
    expected = np.abs(direct_transform(points[:, 0], points[:, 1], weights, grid)) / weights.sum()
    np.testing.assert_allclose(picture, expected, atol=2e-6)
    if n % 2:
        assert picture[n // 2, n // 2] == pytest.approx(1, abs=1e-6)
    assert picture.max() < 1 + 1e-6
