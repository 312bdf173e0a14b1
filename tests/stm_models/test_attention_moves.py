"""Where attention goes: shares made to a rule come back as that rule."""

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.explain.attention import attention, bins_of
from stm_models.explain.by_target import MeanMaps

NAMES = ("inner", "outer", "elsewhere")
AREAS = np.array([0.1, 0.2, 0.7])


def _case(slope, zero, *, noise=0.3, states=60, per_state=3, seed=0):
    """Shares whose densities' log ratio is slope (U - zero), with a noise that is the state's own."""
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.uniform(0, 6, states), per_state)
    state = np.repeat(np.arange(states), per_state)
    ratio = slope * (values - zero) + np.repeat(noise * rng.normal(size=states), per_state) + np.log(2)
    inner = 0.5 / (1 + np.exp(ratio))
    return values, np.stack([inner, 0.5 - inner, np.full(len(values), 0.5)], axis=1), state


def _ask(values, shares, state, **more):
    areas = np.broadcast_to(AREAS, shares.shape)
    return attention(values, shares, areas, state, NAMES, compared=("inner", "outer"), **more)


def test_a_crossover_is_found_where_it_is():
    found = _ask(*_case(0.8, 2.7))
    assert found.ratio.sure
    assert found.ratio.low < 0.8 < found.ratio.high
    assert found.crossover.interval[0] < 2.7 < found.crossover.interval[1]
    assert found.crossover.value == pytest.approx(2.7, abs=0.3)
    assert found.slopes["outer"].value == pytest.approx(-found.slopes["inner"].value)
    assert found.slopes["elsewhere"].value == pytest.approx(0, abs=1e-9)
    words = found.statement("U", "eV")
    assert "from inner to outer as U grows" in words
    assert "equal at U = 2." in words
    assert "from outer to inner" in _ask(*_case(-0.8, 2.7)).statement("U", "eV")


def test_nothing_is_said_to_move_that_does_not():
    cases = [_ask(*_case(0.0, 2.7, noise=1.0, seed=seed), resamples=300) for seed in range(40)]
    still = [found for found in cases if not found.ratio.sure]
    assert len(still) >= 33  # some 38 of 40
    assert {found.crossover.value for found in still} == {None}
    assert "does not move measurably" in still[0].statement("U", "eV")


def test_a_crossing_outside_the_data_is_none():
    found = _ask(*_case(0.8, -2.0))
    assert found.ratio.sure
    assert found.crossover.value is None
    assert found.crossover.interval is None
    assert "outer get more per pixel than inner" in found.crossover.reason
    assert "no crossover" in found.statement("U", "eV")
    assert found.record()["crossover"]["value"] is None


def test_intervals_come_from_states_not_samples():
    values, shares, state = _case(0.8, 2.7, per_state=1, states=40)
    one = _ask(values, shares, state)
    copies = _ask(*(np.repeat(part, 25, axis=0) for part in (values, shares, state)))
    widths = [found.ratio.high - found.ratio.low for found in (one, copies)]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)
    alone = _ask(np.repeat(values, 25), np.repeat(shares, 25, axis=0), np.arange(1000))
    assert alone.ratio.high - alone.ratio.low < 0.3 * widths[0]


def test_coverage_of_the_slope_is_what_it_says():
    inside = [
        found.ratio.low < 0.5 < found.ratio.high
        for found in (_ask(*_case(0.5, 3.0, seed=seed, states=30, per_state=1), resamples=300) for seed in range(60))
    ]
    assert np.mean(inside) > 0.8


def test_bins_hold_levels_or_equal_numbers():
    assert bins_of(np.array([3.0, 1, 1, 3, 2])).tolist() == [2, 0, 0, 2, 1]
    values = np.random.default_rng(0).uniform(size=100)
    which = bins_of(values, 5)
    assert np.bincount(which).tolist() == [20] * 5
    assert (np.diff(which[np.argsort(values)]) >= 0).all()
    same = bins_of(np.repeat([0.0, 1, 2, 3, 4], [90, 1, 1, 1, 7]), 3)
    assert np.bincount(same).min() > 0


def test_means_of_bins_are_means():
    rng = np.random.default_rng(0)
    values, shares, state = _case(0.8, 2.7, states=30)
    found = _ask(values, shares, state, bins=3)
    which = bins_of(values, 3)
    for number in range(3):
        np.testing.assert_allclose(found.mean[number], shares[which == number].mean(axis=0))
        assert found.centres[number] == pytest.approx(values[which == number].mean())
    assert ((found.low < found.mean) | (shares.std(axis=0) < 1e-12)).all()
    maps = rng.normal(size=(len(values), 2, 4, 5))
    means = MeanMaps(3, (2, 4, 5))
    for first in range(0, len(values), 7):
        means.add(maps[first : first + 7], which[first : first + 7])
    np.testing.assert_allclose(means.mean[1], maps[which == 1].mean(axis=0))
    np.testing.assert_allclose(means.strength[2], np.abs(maps[which == 2]).mean(axis=0))
    assert means.counts.sum() == len(values)


def test_a_bin_of_one_state_has_no_interval():
    values, state = np.array([0.0, 0.0, 1.0, 1.0, 2.0]), np.array([0, 1, 2, 3, 4])
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], size=5)
    found = _ask(values, shares, state)
    assert np.isnan(found.low[2]).all()
    assert np.isfinite(found.low[:2]).all()
    assert found.record()["share"]["inner"]["low"][2] is None


def test_too_little_is_refused():
    with pytest.raises(InputError, match="at least 3 states"):
        _ask(np.array([0.0, 1.0]), np.full((2, 3), 1 / 3), np.array([0, 1]))
    with pytest.raises(InputError, match="2 values"):
        _ask(np.ones(5), np.full((5, 3), 1 / 3), np.arange(5))
