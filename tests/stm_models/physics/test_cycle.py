"""The self-consistent cycle: when it stops, when it tries again, and what it says."""

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.cycle import fixed_point
from stm_models.physics.moire.lattice import build

MIXING = ((0.6, 6), (0.3, 10), (0.1, 4))


def run(function, start, **options):
    options = {"mixing": MIXING, "tolerance": 1e-8, "max_iterations": 60} | options
    return fixed_point(function, start, np.ones(len(start)), **options)


def test_contraction_converges_at_once():
    done = run(lambda x: (0.5 * x + 1, "last"), np.zeros(3))
    np.testing.assert_allclose(done.guess, 2, atol=1e-7)
    assert (done.converged, done.attempts, done.extra) == (True, 1, "last")
    assert done.iterations < 10


def test_leading_eigenvalue_is_read_off_the_steps():
    """A linear map: the cycle's own steps hold its spectrum, whether plain iteration would converge or not."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    for leading in (0.4, 1.6):
        spectrum = np.array([leading, 0.1, -0.2, -0.5, 0.2, 0.0])
        matrix = basis * spectrum @ basis.T
        done = run(lambda x, matrix=matrix: (matrix @ x + 1, None), rng.normal(size=6), mixing=((0.6, 20),))
        assert done.converged
        assert done.growth == pytest.approx(leading, abs=1e-3)
        along = basis[:, 0] / basis[np.argmax(np.abs(basis[:, 0])), 0]
        np.testing.assert_allclose(done.direction, along, atol=1e-2)


def test_plain_iterations_follow_the_unstable_direction():
    """x -> 1.6 x - x³ has a saddle at 0 and minima at ±sqrt(.6)."""

    def function(x):
        return np.array([1.6, 0.3]) * x - np.array([1.0, 0.0]) * x**3, None

    at_saddle = run(function, np.array([1e-9, 0.5]))
    assert abs(at_saddle.guess[0]) < 1e-3
    left = run(function, np.array([0.02, 0.0]), plain=16)
    assert left.guess[0] == pytest.approx(np.sqrt(0.6), abs=1e-6)
    assert left.iterations > 16


def wandering(seed=0):
    """Return a map whose residual is 1 wherever one looks."""
    rng = np.random.default_rng(seed)

    def step(x):
        change = rng.normal(size=len(x))
        return x + change / np.abs(change).max(), None

    return step


def test_stalled_cycle_is_tried_again_from_its_best_guess():
    """The map wanders for its first forty calls; only the guess of the seventh was good."""
    seen, wander = [], wandering()

    def function(x):
        seen.append(x.copy())
        if len(seen) == 7:
            return x + 1e-3, None
        return wander(x) if len(seen) < 40 else (0.5 * x, None)

    done = run(function, np.ones(5))
    assert done.converged
    assert done.attempts == 2
    stalled = 7 + 26  # no new low for 25 calls after the seventh
    np.testing.assert_array_equal(seen[stalled], seen[6])
    assert done.iterations == len(seen)


def test_failure_is_said_after_all_attempts():
    done = run(wandering(), np.zeros(5), max_iterations=10)
    assert not done.converged
    assert (done.attempts, done.iterations) == (3, 30)
    assert done.residual == pytest.approx(1)


def test_attempts_are_counted_in_a_solution():
    branch = create("sym", build(1, 2.75), k_count=1, temperature=0.02, dielectric=10.0)
    cut = branch.solve(3.0, 0.0, "bands", max_iterations=2)
    assert (cut.converged, cut.attempts, cut.iterations) == (False, 3, 6)
    whole = branch.solve(3.0, 0.0, "bands", max_iterations=30)
    assert (whole.converged, whole.attempts) == (True, 1)
    rescued = branch.solve(3.0, 0.0, "bands", max_iterations=whole.iterations - 2)
    assert rescued.converged
    assert rescued.attempts == 2
    np.testing.assert_allclose(rescued.arrays["density"], whole.arrays["density"], atol=1e-5)


def test_too_many_electrons_are_refused():
    branch = create("sym", build(1, 2.75), k_count=1, temperature=0.02, dielectric=None)
    with pytest.raises(InputError, match="filling"):
        branch.solve(1.0, 28.5, "bands")
