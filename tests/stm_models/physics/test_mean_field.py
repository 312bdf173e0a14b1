"""Hartree-Fock: derivatives of its free energy, warm starts, convergence, known charge modulations."""

import numpy as np
import pytest
from scipy.special import expit

from stm_models.physics.moire.branches import create
from stm_models.physics.moire.coulomb import hartree_rows
from stm_models.physics.moire.lattice import build
from stm_models.physics.moire.mixing import Anderson
from stm_models.physics.moire.occupation import chemical_potential

TIGHT = 1e-10


def small(dielectric, temperature=0.02):
    return create("sym", build(2, 2.75), k_count=2, temperature=temperature, dielectric=dielectric)


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_hellmann_feynman_for_the_interaction(dielectric):
    """dF/dU = sum_i (n_i² - n_i): the spin-degenerate mean field of U (n_up - 1/2)(n_dn - 1/2)."""
    field, step = small(dielectric), 1e-3
    above, middle, below = (field.solve(3 + s, 0.3, "bands", tolerance=TIGHT) for s in (step, 0, -step))
    slope = (above.free_energy - below.free_energy) / (2 * step)
    n = field.site_values(middle.arrays["density"])
    assert slope == pytest.approx((n**2 - n).sum(), abs=1e-7)


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_chemical_potential_is_the_price_of_an_electron(dielectric):
    """dF/dN = mu, plus what the even background nbar = N/2/sites of the Hartree term gives by itself."""
    field, step = small(dielectric), 1e-3
    above, middle, below = (field.solve(3.0, 0.3 + s, "bands", tolerance=TIGHT) for s in (step, 0, -step))
    slope = (above.free_energy - below.free_energy) / (2 * step)
    background = 0.0
    if dielectric is not None:
        size = field.lattice.size
        n = field.site_values(middle.arrays["density"])
        potential = hartree_rows(field.lattice, np.arange(size), dielectric, 10.0) @ (n - n.mean())
        background = -2 * potential.sum() / size
    assert slope == pytest.approx(middle.chemical_potential + background, abs=1e-6)


def test_entropy_is_the_slope_in_temperature():
    """dF/d(kT) = -S/k, with E and F of one solution: F = E - kT S."""
    step, middle = 1e-4, small(10.0).solve(3.0, 0.3, "bands", tolerance=TIGHT)
    above, below = (small(10.0, 0.02 + s).solve(3.0, 0.3, "bands", tolerance=TIGHT) for s in (step, -step))
    slope = (above.free_energy - below.free_energy) / (2 * step)
    assert slope == pytest.approx((middle.free_energy - middle.energy) / 0.02, rel=1e-4)
    assert middle.free_energy < middle.energy


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_free_energy_is_stationary(dielectric):
    """An error of a state shows only squared in its energy, so tolerance 1e-6 costs nothing there."""
    field = small(dielectric)
    exact = field.solve(3.0, 0.3, "bands", tolerance=TIGHT)
    generator = np.random.default_rng(0)
    density = generator.normal(size=len(exact.arrays["density"]))
    density -= field.sites.size @ density / field.lattice.size
    order = generator.normal(size=len(exact.arrays["bond_order"]))
    cost = []
    for size in (1e-3, 1e-4):
        start = {
            "density": exact.arrays["density"] + size * density,
            "bond_order": exact.arrays["bond_order"] + size * order,
        }
        off = field.solve(3.0, 0.3, start, max_iterations=1, max_attempts=1)
        cost.append((off.free_energy - exact.free_energy) / size**2)
    assert abs(cost[0]) > 1
    assert cost[1] == pytest.approx(cost[0], rel=1e-3)


@pytest.mark.parametrize("fixture", ["hubbard_field", "coulomb_field"])
def test_warm_start_ends_where_a_cold_one_does(fixture, request):
    """Another U and filling to start from changes no density by more than the tolerance's order."""
    field = request.getfixturevalue(fixture)
    before = field.solve(1.5, -0.1, "bands", tolerance=1e-7)
    warm = field.solve(2.0, 0.1, before.arrays, tolerance=1e-7)
    cold = field.solve(2.0, 0.1, "bands", tolerance=1e-7)
    assert warm.converged
    assert cold.converged
    assert warm.iterations <= cold.iterations
    np.testing.assert_allclose(warm.arrays["density"], cold.arrays["density"], atol=1e-6)
    np.testing.assert_allclose(warm.arrays["bond_order"], cold.arrays["bond_order"], atol=1e-6)


def test_a_run_that_did_not_converge_says_so(coulomb_field):
    result = coulomb_field.solve(3.0, 0.0, "bands", max_iterations=2, max_attempts=1)
    assert not result.converged
    assert result.iterations == 2
    assert result.residual > 1e-6
    assert np.isfinite(result.energy)


@pytest.mark.parametrize(
    ("fixture", "start", "end"), [("hubbard_field", 0.0747, 0.0402), ("coulomb_field", 0.106, 0.048)]
)
def test_interaction_evens_the_charge(fixture, start, end, request):
    """Independent prototype: 2 ptp(n) at I=5, d=2.74 Å falls from .0747 to .0402 (Hubbard), .106 to .048 (eps=10)."""
    field = request.getfixturevalue(fixture)
    state, modulation = "bands", []
    for interaction in (0.0, 2.0, 4.0, 6.0):
        solution = field.solve(interaction, 0.0, state)
        assert solution.converged
        state = solution.arrays
        modulation.append(2 * np.ptp(solution.arrays["density"]))
    assert np.all(np.diff(modulation) < 0)
    assert modulation[0] == pytest.approx(start, abs=6e-4)
    assert modulation[-1] == pytest.approx(end, abs=6e-4)


def test_same_input_gives_the_same_bits(coulomb_field):
    first, second = (coulomb_field.solve(2.5, 0.1, "bands", max_iterations=4) for _ in range(2))
    assert np.array_equal(first.arrays["density"], second.arrays["density"])
    assert first.energy == second.energy


@pytest.mark.parametrize("count", [0.3, 4.0, 7.9])
def test_chemical_potential_holds_the_count(count):
    energies = np.array([[-1.0, -0.2, 0.1, 2.0], [-0.9, 0.0, 0.3, 1.5]])
    weights = np.array([0.25, 0.75])
    level = chemical_potential(energies, weights, count, 0.01)
    assert 2 * weights @ expit((level - energies) / 0.01).sum(axis=1) == pytest.approx(count, abs=1e-12)


def test_chemical_potential_sits_in_the_middle_of_a_gap():
    assert chemical_potential(np.array([[-0.05, 0.05]]), np.ones(1), 2.0, 0.01) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1e-4, 1e-5])
def test_chemical_potential_of_a_gap_far_wider_than_the_temperature_is_that_of_equilibrium(temperature):
    """As many electrons as holes: kT/2 ln(weight below / weight above) from the middle; the count sees neither."""
    bands = np.array([[-3.0, -0.05, 0.05, 5.0], [-3.0, -0.05, 1.0, 5.0]])
    level = chemical_potential(bands, np.array([0.25, 0.75]), 4.0, temperature)
    assert level == pytest.approx(temperature * np.log(4) / 2, rel=1e-9, abs=1e-13)
    crossed = np.array(
        [[-3.0, -1.0, -0.05, 5.0], [-3.0, 0.05, 1.0, 5.0]]
    )  # three bands are full in one, one in the other
    assert chemical_potential(crossed, np.array([0.5, 0.5]), 4.0, temperature) == pytest.approx(0, abs=1e-13)


def test_anderson_solves_a_linear_problem_where_plain_mixing_diverges():
    """On a linear map of n unknowns type-II Anderson mixing is exact after n + 1 steps."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(5, 5)) - 3 * np.eye(5)
    offset = generator.normal(size=5)
    exact = np.linalg.solve(np.eye(5) - matrix, offset)
    guess = straight = np.zeros(5)
    mixer = Anderson(np.array([1.0, 2.0, 1.0, 4.0, 1.0]), history=6)
    for _ in range(9):
        guess = mixer.step(guess, matrix @ guess + offset - guess)
        straight = straight + 0.6 * (matrix @ straight + offset - straight)
    np.testing.assert_allclose(guess, exact, atol=1e-6)
    assert np.abs(straight - exact).max() > 10
