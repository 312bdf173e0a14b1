"""Each gate by itself: what passes, what fails, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import gates


def better(ours, theirs, differences, *, larger=False, alpha=0.05):
    return gates.better("mae", ours, theirs, np.array(differences, float), larger=larger, alpha=alpha, than="it")


def test_a_lead_that_chance_explains_does_not_pass():
    rng = np.random.default_rng(0)
    assert better(0.1, 0.2, rng.normal(-0.1, 0.02, 20)).passed
    lucky = better(0.19, 0.2, [-0.2, 0.1, 0.05, -0.05, 0.02, 0.02])
    assert lucky.passed is False
    assert "chance alone" in lucky.reason
    assert better(0.1, 0.2, [-0.1] * 4).passed is False  # four states cannot show 5 %
    assert better(0.1, 0.2, [-0.1] * 5).passed
    assert "not below" in better(0.2, 0.2, np.zeros(9)).reason
    assert "not above" in better(0.7, 0.8, np.full(9, 0.1), larger=True).reason
    assert better(0.9, 0.8, np.full(9, -0.1), larger=True).passed


@given(st.integers(0, 2**32 - 1))
def test_equally_good_models_rarely_pass(seed):
    """The test's own level: of models without a difference at most alpha are let through."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=(40, 15))
    passed = sum(better(-1.0, 0.0, row, alpha=0.05).passed for row in draws)
    assert passed <= 11  # 2.0 expected; more happens once in a million


def test_one_set_given_up_for_the_others_fails():
    champion = {"clean": 0.05, "mild": 0.1, "noisy": 0.15}
    good = gates.robustness("mae", {**champion, "clean": 0.06}, champion, {}, larger=False, slack=0.25)
    assert good.passed
    lost = gates.robustness("mae", {"clean": 0.01, "mild": 0.02, "noisy": 0.2}, champion, {}, larger=False, slack=0.25)
    assert lost.passed is False
    assert "noisy: 0.2, the champion 0.15" in lost.reason
    floor = gates.robustness("mae", champion, {}, {"mild": 0.09}, larger=False, slack=0.25)
    assert floor.passed is False
    assert "mild: 0.1, allowed 0.09" in floor.reason
    ranked = {"clean": 0.9, "noisy": 0.5}
    assert gates.robustness("f1", ranked, {}, {"noisy": 0.6}, larger=True, slack=0.25).passed is False
    assert gates.robustness("f1", ranked, ranked, {"noisy": 0.4}, larger=True, slack=0.0).passed


@pytest.mark.parametrize(("hits", "of", "passed"), [(90, 100, True), (83, 100, True), (70, 100, False),
                                                    (100, 100, False), (10, 10, True)])  # fmt: skip
def test_intervals_that_promise_too_much_or_too_little_fail(hits, of, passed):
    gate = gates.coverage({"clean": np.arange(of) < hits}, 0.9)
    assert gate.passed is passed
    assert f"{hits / of:.1%} of {of}" in gate.reason
    assert gate.limit == 0.9


def test_the_set_that_is_off_is_named():
    gate = gates.coverage({"clean": np.ones(20, bool), "noisy": np.arange(50) < 20}, 0.9)
    assert gate.passed is False
    assert gate.reason.endswith("expected 90% on noisy")


def test_parity_sanity_and_latency():
    answers = np.array([[1.0], [2.0]])
    assert gates.parity(answers * (1 + 5e-6), answers, 1e-4).passed
    assert gates.parity(answers * (1 + 5e-4), answers, 1e-4).passed is False
    assert gates.parity(np.array([[np.nan], [2.0]]), answers, 1e-4).passed is False
    assert gates.sanity(answers).passed
    assert gates.sanity(np.ones((3, 1))).passed is False
    assert gates.sanity(np.array([[np.inf], [1.0]])).passed is False
    assert gates.latency(3.0, 5.0).passed
    assert gates.latency(6.0, 5.0).passed is False


def test_a_record_is_plain():
    gate = gates.Gate("coverage", None, "no intervals")
    assert gate.record() == {"name": "coverage", "verdict": "not judged", "reason": "no intervals", "value": None,
                             "limit": None}  # fmt: skip
    assert gates.baselines("mae", 0.1, {"ridge": 0.05, "mean": 0.1}).reason == (
        "mae is 0.1, that of ridge (0.05) and mean (0.1) as good or better: expected to beat them"
    )
