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


def test_what_a_file_gives_one_network_is_not_searched_for_it_and_searched_for_others(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("networks: {mlp: {learning_rate: 0.5, seed: 3, options: {hidden: '7'}}}")
    pairs = ["tune.networks=[linear, mlp]", "train.network=linear", "tune.seed=9"]
    chosen = settings.load("hubbard", "test", config=str(file), assignments=pairs)
    space = SearchSpace.of(chosen)
    assert set(space.training("linear")) - set(space.training("mlp")) == {"learning_rate"}
    assert "hidden" not in space.options["mlp"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.config(study.ask(), chosen) for _ in range(12)]
    own = [one for one in drawn if one.network == "mlp"]
    others = [one for one in drawn if one.network == "linear"]
    assert {(one.learning_rate, one.seed, one.options["hidden"]) for one in own} == {(0.5, 3, "7")}
    assert len({one.learning_rate for one in others}) == len(others) > 1
    assert {one.seed for one in others} == {9}
    kept = {"train.learning_rate": 1e-3, "train.weight_decay": 1e-4}
    assert space.fitting(kept, "mlp")[0].keys() == {"network", "train.weight_decay"}
    assert space.fitting(kept, "linear")[0].keys() == {"network", *kept}


def test_the_seed_of_trials_is_the_one_that_is_given_to_the_training():
    assert {each.seed for each in _drawn(["train.seed=5", "tune.seed=7"])[1]} == {5}
    assert {each.seed for each in _drawn(["tune.seed=7"])[1]} == {7}


def test_every_network_of_a_search_trains_as_the_preset_has_it_for_that_one():
    chosen = settings.load("hubbard", "quick", assignments=["tune.networks=[conv, lattice]", "train.device=cpu"])
    space = SearchSpace.of(chosen)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {one.network: one for one in (space.config(study.ask(), chosen) for _ in range(12))}
    assert {name: (one.repeats, one.batch_size, one.device) for name, one in drawn.items()} == {
        "conv": (1, 32, "cpu"), "lattice": (16, 512, "cpu"),
    }  # fmt: skip


def test_what_a_preset_trains_with_can_be_drawn():
    chosen = settings.load("hubbard", "quick")
    for key, entry in SearchSpace.of(chosen).train.items():
        assert entry.low <= getattr(chosen.train, key) <= entry.high, key


def test_what_one_has_without_a_search_is_a_trial_of_it():
    chosen = settings.load("hubbard", "quick", assignments=["tune.networks=[conv, lattice]"])
    space = SearchSpace.of(chosen)
    assert space.usual(chosen) == {
        "network": "lattice", "train.learning_rate": 2e-3, "train.weight_decay": 0.1,
        "lattice.hidden": "128-64", "lattice.components": 48,
    }  # fmt: skip
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.usual(chosen))
    drawn = space.config(study.ask(), chosen)
    assert drawn.options == {"shapes": False, "hidden": "128-64", "components": 48}
    assert drawn.model_copy(update={"options": chosen.train.options, "epochs": 500}) == chosen.train
    given = settings.load("hubbard", "test", assignments=["train.options.hidden='7'", "train.learning_rate=0.5"])
    assert set(SearchSpace.of(given).usual(given)) == {"train.weight_decay", "lattice.components"}
