import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.signal.conformal import coverage_interval, quantile, separate, tail_table

SCORES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(SCORES, st.floats(0.05, 0.95))
def test_quantile_of_single_samples_is_the_order_statistic(scores, level):
    rank = math.ceil(level * (len(scores) + 1) - 1e-9)
    expected = sorted(scores)[rank - 1] if rank <= len(scores) else math.inf
    assert quantile(scores, range(len(scores)), level) == expected


def test_a_groups_samples_share_its_weight():
    # Three groups, one with a hundred large scores: these weigh as much as one.
    scores, groups = [1.0, 2.0, *[9.0] * 100], [0, 1, *[2] * 100]
    assert quantile(scores, groups, 0.5) == 2.0
    assert quantile(scores, groups, 0.6) == 9.0


@given(SCORES, st.lists(st.integers(0, 5), min_size=30, max_size=30))
def test_p_values_fall_from_one_to_the_floor(scores, groups):
    groups = groups[: len(scores)]
    table, count = tail_table(scores, groups), len(set(groups))
    ask = np.sort(np.concatenate([scores, np.linspace(-2e3, 2e3, 41), [1e12]]))
    found = table(ask)
    assert (np.diff(found) <= 1e-12).all()
    assert found[0] == pytest.approx(1)
    assert found[-1] == pytest.approx(1 / (count + 1))
    weights = {group: 1 / groups.count(group) for group in groups}
    for score in scores:
        above = sum(weights[group] for other, group in zip(scores, groups, strict=True) if other >= score)
        assert table(score) == pytest.approx((1 + above) / (count + 1))
    steps = [(1 + sum(weights[g] for o, g in zip(scores, groups, strict=True) if o >= a)) / (count + 1) for a in ask]
    assert (found >= np.array(steps) - 1e-9).all()  # between them never below


def test_p_values_of_new_samples_are_uniform_or_larger():
    rng = np.random.default_rng(0)
    low = [float(tail_table(rng.normal(size=19), np.arange(19))(rng.normal()) <= 0.1) for _ in range(4000)]
    assert np.mean(low) <= 0.1 + 3 * math.sqrt(0.09 / 4000)
    assert np.mean(low) > 0.04


def test_enough_groups_bound_the_false_alarms_of_nearly_every_calibration():
    """Scores are uniform, so the share of new ones beyond a score is known exactly."""
    rng, limit = np.random.default_rng(1), 0.05
    alarms = []
    for _ in range(400):
        table = tail_table(rng.random(320), np.arange(320))
        ask = np.linspace(0, 1, 2001)
        alarms.append(1 - ask[np.argmax(table(ask) <= limit)])
    share = np.mean(np.array(alarms) > limit + 1e-3)
    assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert np.mean(alarms) > 0.02  # and yet they are no smaller than need be


def test_the_bound_is_the_largest_share_that_explains_so_few():
    from scipy.stats import binom

    table = tail_table(np.arange(400.0), np.arange(400))
    for score in (399.0, 395.0, 380.0, 100.0):
        as_far = 400 - score  # held-out groups
        assert binom.cdf(as_far, 400, table(score)) == pytest.approx(0.05, rel=1e-6)
    assert table(1e9) == pytest.approx(1 - 0.05 ** (1 / 400))
    assert tail_table(np.arange(298.0), np.arange(298))(1e9) == pytest.approx(1 / 299)  # too few to tell .01


def test_mistakes_are_named():
    with pytest.raises(InputError, match="two lists"):
        quantile([1.0, 2.0], [0], 0.5)
    with pytest.raises(InputError, match="level"):
        quantile([1.0], [0], 1.0)
    with pytest.raises(InputError, match="two lists"):
        tail_table([], [])
    with pytest.raises(InputError, match="1 of them NaN"):
        quantile([1.0, np.nan], [0, 1], 0.5)
    with pytest.raises(InputError, match="1 of them NaN"):
        tail_table([1.0, np.nan], [0, 1])
    with pytest.raises(InputError, match=r"1 groups .e.g. 3. are both in a and b"):
        separate([1, 3], [3, 4], "a and b")


def test_binomial_interval_against_its_definition():
    from scipy.stats import binom

    low, high = coverage_interval(1338, 1500)
    assert binom.sf(1337, 1500, low) == pytest.approx(0.025, rel=1e-3)
    assert binom.cdf(1338, 1500, high) == pytest.approx(0.025, rel=1e-3)
