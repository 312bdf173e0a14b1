"""How a preset, a file, assignments and a run's record make one configuration."""

import inspect
import re
from pathlib import Path

import pytest

from pipelines import settings
from pipelines.recipes import Recipes
from pipelines.settings import TuneConfig
from stm_models.errors import InputError
from stm_models.training.config import TrainConfig
from tracking.study import create_study


def of(*assignments, preset="quick", recorded=None):
    return settings.load("impurity", preset, assignments=list(assignments), recorded=recorded).train


def test_the_preset_s_options_are_its_own_network_s():
    assert of().options == {"eightfold": True}
    assert of("train.network=voltage_attention").options == {}
    assert of("train.network=voltage_attention", "train.options.width=8").options == {"width": 8}
    assert of(f"train.network={of().network}").options == {"eightfold": True}
    assert of("train.network=voltage_attention", preset="test").options == {}


def test_what_a_preset_has_for_one_network_is_no_other_s():
    def train(*assignments, **more):
        return settings.load("hubbard", "quick", assignments=list(assignments), **more)

    own, other = train().train, train("train.network=resnet18").train
    plain = TrainConfig(network="resnet18", loss="l1", perturbation="mixed")
    assert (own.network, own.epochs, own.repeats) == ("lattice", 500, 16)
    assert other == plain  # 16 copies of each image in 500 epochs would take a convolutional network days
    assert train("train.network=lattice").train == own
    asked = train("train.network=conv", "train.epochs=7", "train.options.pool=8", seed=3)
    assert asked.training_of("lattice") == own.model_copy(update={"epochs": 7, "seed": 3})
    assert asked.training_of("conv") is asked.train
    recorded = {"train": {**plain.model_dump(), "epochs": 3}}
    assert train(recorded=recorded).train == plain.model_copy(update={"epochs": 3})


def test_a_file_has_values_for_single_networks_too(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("train: {network: conv}\nnetworks: {conv: {epochs: 5, options: {pool: 8}}, lattice: {epochs: 9}}\n")
    made = settings.load("hubbard", "quick", config=str(file))
    assert (made.train.network, made.train.epochs, made.train.options) == ("conv", 5, {"pool": 8})
    assert (made.training_of("lattice").epochs, made.training_of("lattice").repeats) == (9, 16)
    assert made.recipes.fixed("conv") == {"network", "epochs", "options.pool"}
    assert made.recipes.fixed("lattice") == {"network", "epochs"}
    asked = settings.load("hubbard", "quick", config=str(file), assignments=["train.epochs=2"])
    assert (asked.train.epochs, asked.training_of("lattice").epochs) == (2, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("networks: {latice: {epochs: 3}}", "did you mean 'lattice'"),
        ("networks: {lattice: {epoch: 3}}", "networks.lattice: "),
        ("networks: {lattice: {epochs: -3}}", "networks.lattice: epochs"),
        ("networks: {lattice: 3}", "expected keys of section 'train'"),
        ("networks: 3", "section 'networks' of the configuration is 3: expected keys below it, e.g. networks: {NAME: "),
        ("networks: {lattice: {network: conv}}", "go below networks.conv"),
        ("networks: {mlp: {targets: [filling]}}", "networks.mlp.targets: all networks share it"),
        ("networks: {mlp: {threads: 1}}", "networks.mlp.threads: all networks share it"),
        ("networks: {mlp: {loss: focal_heat}}", "unknown loss of hubbard 'focal_heat'"),
        ("networks: {mlp: {perturbation: mildd}}", "did you mean 'mild'"),
    ],
)
def test_values_for_a_network_that_are_none_are_refused(tmp_path, text, said):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        settings.load("hubbard", "quick", config=str(file))


def test_a_preset_says_of_a_single_network_no_more_than_a_file_may():
    with pytest.raises(InputError, match=r"networks\.mlp\.targets: all networks share it"):
        Recipes.read({"networks": {"mlp": {"targets": ["filling"]}}}, {}, {}, "lattice")


def test_a_value_for_a_single_network_is_no_assignment():
    with pytest.raises(InputError, match="section of the configuration 'networks'"):
        settings.load("hubbard", "quick", assignments=["networks.lattice.epochs=3"])


def test_options_can_be_taken_away():
    assert of("train.options={}").options == {}


@pytest.mark.parametrize("options", [{}, {"width": 8}])
def test_a_run_is_repeated_with_its_own_options_and_no_others(options):
    recorded = {"train": {"network": "voltage_attention", "options": options}, "evaluate": {}, "code": {"a": 1}}
    made = of(recorded=recorded)
    assert (made.network, made.options) == ("voltage_attention", options)
    assert made.epochs == of().epochs


def test_an_empty_section_of_a_file_is_a_mistake(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("train:\n")
    with pytest.raises(InputError, match="section 'train' of the configuration is None"):
        settings.load("impurity", "quick", config=str(file))


def test_it_is_known_what_was_given_beside_the_preset(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("train: {batch_size: 8}")
    pairs = ["train.learning_rate=0.002;train.options.hidden=[7]", "train.network=mlp"]
    chosen = settings.load("hubbard", "test", config=str(file), assignments=pairs, seed=3)
    assert chosen.recipes.fixed("mlp") == {"batch_size", "learning_rate", "options.hidden", "network"}
    assert chosen.recipes.fixed("lattice") == {"batch_size", "learning_rate", "network"}
    assert settings.load("hubbard", "test").recipes.fixed("lattice") == set()


def test_a_seed_given_by_its_own_key_stands_over_the_seed_of_all(tmp_path):
    chosen = settings.load("hubbard", "test", assignments=["split.seed=0"], seed=7)
    assert (chosen.split.seed, chosen.simulate.seed, chosen.train.seed, chosen.tune.seed) == (0, 7, 7, 7)
    file = tmp_path / "own.yaml"
    file.write_text("split: {seed: 0}")
    assert settings.load("hubbard", "test", config=str(file), seed=7).split.seed == 0


def test_values_cannot_be_held_out_of_a_task_without_any():
    with pytest.raises(InputError, match=r"unseen_fraction is 0.5, but task impurity has no values to hold out"):
        settings.load("impurity", "test", assignments=["split.unseen_fraction=0.5"])
    assert settings.load("impurity", "test", assignments=["split.unseen_fraction=0"]).split.unseen_fraction == 0


def test_a_search_has_seeds_that_its_trials_can_have():
    with pytest.raises(InputError, match=r"tune: seed"):
        settings.load("hubbard", "test", assignments=["tune.seed=3000000000"])


def test_a_study_is_made_with_the_default_of_the_product():
    given = inspect.signature(create_study).parameters
    assert (given["sampler"].default, given["pruner"].default) == (TuneConfig().sampler, TuneConfig().pruner)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("simulate hubbard --out a.zarr --set train.epochs=3", "unknown section of stm simulate 'train'"),
        ("train hubbard --data a.zarr --set simulate.draws=8", "unknown section of stm train 'simulate'"),
        ("train hubbard --data a.zarr --set train.epochs=3;tune.trials=7", "unknown section of stm train 'tune'"),
        ("tune hubbard --data a.zarr --set promote.alpha=.9", "unknown section of stm tune 'promote'"),
        (
            "promote hubbard --rollback --set promote.alpha=.9",
            "--set with --rollback, which asks no gate: leave it out",
        ),
        ("evaluate a.onnx --data a.zarr --perturbation-seed 3", "--perturbation-seed is 3, but no set is named with"),
        ("train hubbard --data a.zarr --set train.epochs=true", "epochs: expected a number, got True"),
        ("train hubbard --data a.zarr --config twice.yaml", "the key 'train' twice, again in line 2: keep one"),
    ],
)
def test_what_would_change_nothing_is_refused(stm, monkeypatch, tmp_path, command, expected):
    monkeypatch.chdir(tmp_path)
    Path("twice.yaml").write_text("train: {epochs: 3}\ntrain: {batch_size: 8}\n")
    code, _, error = stm(*command.split())
    assert (code, expected in error) == (2, True), error


def test_a_file_may_hold_the_sections_of_other_commands(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("train: &a {epochs: 3}\ntune: {epochs: 3}\n")
    assert settings.load("hubbard", "test", config=str(file)).tune.epochs == 3
