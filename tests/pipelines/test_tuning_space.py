"""What a search chooses, and what it leaves as it was given."""

from __future__ import annotations

import optuna

from pipelines import settings
from pipelines.tuning.space import SearchSpace


def _drawn(assignments):
    chosen = settings.load("hubbard", "test", assignments=assignments)
    space = SearchSpace.of(chosen)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return space, [space.config(study.ask(), chosen) for _ in range(5)]


def test_what_is_given_is_not_searched():
    network = ["train.network=mlp", "train.options={dropout: 0}"]
    space, free = _drawn(network[:1])
    assert {"learning_rate", "hidden"} <= {*space.train, *space.options["mlp"]}
    assert len({each.learning_rate for each in free}) == 5
    space, fixed = _drawn([*network, "train.learning_rate=0.5", "train.options.hidden='7'"])
    assert "learning_rate" not in space.train
    assert not {"hidden", "dropout"} & set(space.options["mlp"])
    assert {(each.learning_rate, str(each.options["hidden"]), each.options["dropout"]) for each in fixed} == {
        (0.5, "7", 0)
    }


def test_options_given_to_one_network_leave_those_of_others_searched():
    space, _ = _drawn(["train.network=mlp", "train.options.hidden='7'", "tune.networks=[linear, mlp]"])
    whole, _ = _drawn(["train.network=mlp", "tune.networks=[linear, mlp]"])
    assert set(whole.options["mlp"]) - set(space.options["mlp"]) == {"hidden"}
    assert space.options["linear"] == whole.options["linear"]


def test_the_seed_of_trials_is_the_one_that_is_given_to_the_training():
    assert {each.seed for each in _drawn(["train.seed=5", "tune.seed=7"])[1]} == {5}
    assert {each.seed for each in _drawn(["tune.seed=7"])[1]} == {7}
