"""Leaving a saddle: both ways are tried, the lower end is kept, and what is stable is left alone."""

import numpy as np
import pytest

from stm_models.physics.moire.cycle import fixed_point
from stm_models.physics.moire.saddle import End, leave
from stm_models.physics.moire.solution import Solution

TILT = 0.02


def energy(x):
    """A double well, lower on the right."""
    return float(-0.3 * x[0] ** 2 + x[0] ** 4 / 4 - TILT * x[0] + 0.4 * x[1] ** 2)


def descent(x):
    """Steps down the gradient of `energy`: x[0] grows by 1.6 near the saddle."""
    return np.array([1.6 * x[0] - x[0] ** 3 + TILT, 0.2 * x[1]]), None


class Cycle:
    def __init__(self):
        self.starts = []

    def __call__(self, state, plain=0):
        self.starts.append(state.copy())
        done = fixed_point(
            descent, state, np.ones(2), mixing=((0.6, 20),), tolerance=1e-9, max_iterations=60, plain=plain
        )
        return End(
            Solution(
                {"x": done.output}, np.empty(0), [], 0.0, 0.0, energy(done.guess), done.iterations, done.attempts,
                done.residual, done.converged, done.growth,
            ),
            done.guess,
            done.direction,
        )  # fmt: skip


def test_saddle_is_left_for_the_lower_of_both_wells():
    cycle = Cycle()
    saddle = cycle(np.array([-0.03, 0.4]))
    assert saddle.solution.converged
    assert abs(saddle.place[0]) < 0.05
    assert saddle.solution.growth == pytest.approx(1.6, abs=0.02)
    found = leave(saddle, cycle)
    assert found.arrays["x"][0] == pytest.approx(0.79, abs=0.01)
    assert found.free_energy < saddle.solution.free_energy - 0.05
    assert len(cycle.starts) == 3
    steps = [start - saddle.place for start in cycle.starts[1:]]
    np.testing.assert_allclose(steps[0], -steps[1])
    assert found.iterations > saddle.solution.iterations
    assert found.attempts == 3


def test_a_stable_end_costs_nothing():
    cycle = Cycle()
    well = cycle(np.array([0.7, 0.4]))
    assert leave(well, cycle) is well.solution
    assert len(cycle.starts) == 1


def test_a_saddle_without_a_lower_neighbour_is_kept():
    cycle = Cycle()
    saddle = cycle(np.array([-0.03, 0.4]))
    kept = leave(saddle, lambda state, plain: saddle)
    assert kept.free_energy == saddle.solution.free_energy
    np.testing.assert_array_equal(kept.arrays["x"], saddle.solution.arrays["x"])
    assert kept.attempts == 3
