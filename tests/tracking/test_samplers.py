"""How a study draws its trials, and ends the hopeless ones."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from stm_models.errors import InputError
from tracking import samplers


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "random"])
def test_samplers_learn_where_it_is_good_and_repeat_themselves(name):
    def objective(trial):
        kind = 0.1 if trial.suggest_categorical("kind", ["a", "b"]) == "b" else 0.0
        return kind + (trial.suggest_float("x", 0, 1) - 0.8) ** 2 + (trial.suggest_float("y", 0, 1) - 0.2) ** 2

    found = []
    for seed, count in ((3, 24), (3, 6), (4, 6)):
        searched = optuna.create_study(sampler=samplers.create_sampler(name, seed))
        searched.optimize(objective, n_trials=count)
        found.append([trial.value for trial in searched.trials])
    whole, again, another = found
    assert whole[:6] == again != another
    if name != "random":
        assert np.mean(whole[-6:]) < 0.6 * np.mean(whole[:6])


def test_a_sampler_whose_package_is_missing_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cmaes" else SimpleNamespace())
    with pytest.raises(InputError, match=r"needs the package 'cmaes'.*stm-lab\[train\].*tune.sampler=tpe"):
        samplers.create_sampler("cmaes", 1)


@pytest.mark.parametrize("name", ["median", "hyperband", "wilcoxon", "none"])
def test_every_pruner_but_none_ends_a_hopeless_trial(name):
    def objective(trial):
        level = 1.0 if trial.number < 12 else 9.0
        for step in range(1, 17):
            trial.report(level + 0.01 * trial.number + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return level

    searched = optuna.create_study(pruner=samplers.create_pruner(name))
    searched.optimize(objective, n_trials=15)
    assert ("PRUNED" in {trial.state.name for trial in searched.trials[12:]}) == (name != "none")
