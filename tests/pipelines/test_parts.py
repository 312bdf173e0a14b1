"""Which labels of a data set can be split by state, and what is held out."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.model.metadata import ModelMetadata
from deploy.model.questions import load_fitting
from pipelines import settings, train
from pipelines.learning.fitting import Fitted, Measured
from pipelines.learning.parts import load_parts
from pipelines.settings import SplitConfig
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.data.store import Store, create
from stm_models.errors import InputError
from stm_models.tasks.registry import get
from support import toy_task

TASK = toy_task.ToyTask()


def _data(path, chains, length, same=False):
    """Make data of chains of states, or with ``same`` of chains along the same states."""
    plan = TASK.plan(toy_task.ToyConfig(chains=chains, length=length))
    if same:
        chained = [tuple(replace(group, state=number) for number, group in enumerate(chain)) for chain in plan.chains]
        plan = replace(plan, chains=tuple(chained))
    targets = [{"name": name, "unit": "1", "description": ""} for name in ("U", "r")]
    about = {"task": "toy", "recipe": "r" * 64, "config": {}, "targets": targets[:1], "possible_targets": targets[1:],
             "input": {"kind": "toy", "channels": 1}}  # fmt: skip
    create(path, plan, about)
    store, simulate = Store(path), TASK.simulator(toy_task.ToyConfig())
    for group in plan.groups:
        store.write(group, simulate(group, None))
    store.finish()
    return path


def test_a_target_that_a_chain_shares_is_refused(tmp_path):
    data = _data(tmp_path / "a.zarr", chains=3, length=4)
    with pytest.raises(InputError, match=r"target 'r' of .* same for all states of a chain.*interaction_count=1"):
        load_parts(data, TASK, SplitConfig(), ["U", "r"])
    assert len(load_parts(data, TASK, SplitConfig(), ["U"]).train)


def test_a_target_that_chains_share_is_refused_where_they_have_as_many_states_as_there_are_chains(tmp_path):
    with pytest.raises(InputError, match=r"target 'r' of .* same for all states of a chain"):
        load_parts(_data(tmp_path / "a.zarr", chains=3, length=3, same=True), TASK, SplitConfig(), ["U", "r"])


def test_chains_of_one_state_can_have_any_target(tmp_path):
    parts = load_parts(_data(tmp_path / "a.zarr", chains=6, length=1), TASK, SplitConfig(), ["r"])
    assert not np.intersect1d(parts.train.targets, parts.validation.targets).size


def test_a_training_says_of_which_label_values_were_held_out(data, monkeypatch):
    run = SimpleNamespace(id="r", link="there")
    monkeypatch.setattr(train, "runs", SimpleNamespace(start=lambda *_, **__: nullcontext(run)))
    monkeypatch.setattr(train, "fit", lambda *_, **__: Fitted("r", "mlp", {"mae": 1.0}))

    def said(targets, fraction):
        chosen = settings.load("hubbard", "test", assignments=[f"split.unseen_fraction={fraction}"])
        parts = load_parts(data, chosen.task, chosen.split, targets)
        return train.describe(train.recorded(None, chosen, parts, Measured()))

    note = "note: unseen_… are of values of U that were held out: the same values of charge_modulation may"
    assert note in said(["charge_modulation"], 0.2)
    assert "note" not in said(["charge_modulation"], 0) + said(["U", "charge_modulation"], 0.2)


@pytest.fixture(scope="module")
def impurity(tmp_path_factory):
    """Four fields."""
    path = tmp_path_factory.mktemp("impurity") / "fields.zarr"
    chosen = settings.load("impurity", "test", assignments=["simulate.fields=4;simulate.size=16"])
    simulate(chosen.task, chosen.simulate, path, workers=1)
    return path


@pytest.mark.parametrize(("task", "target", "other"), [("hubbard", "U", "impurity"), ("impurity", "heat", "hubbard")])
def test_data_of_another_task_are_told_as_such(data, impurity, task, target, other):
    """Not as damage, for what the other task's data lack, nor as an unknown target."""
    wrong = {"hubbard": data, "impurity": impurity}[other]
    with pytest.raises(InputError, match=f"is a data set of task '{other}', expected '{task}'"):
        load_parts(wrong, get(task), SplitConfig(), [target])
    size = {"kind": "x", "unit": "1", "channels": 1, "height": 16, "width": 16}
    about = ModelMetadata(task=task, targets=[{"name": target, "unit": "1"}], input=size)
    with pytest.raises(InputError, match=f"its task is {other}, the model's is {task}"):
        load_fitting(wrong, about)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"material": "Cu(111)"}, r"its material is Au\(111\), the model's is Cu\(111\): give a data set"),
        (
            {"biases": [-0.4, 0.2, 0.6]},
            r"its set of biases \(V\) is -0.23, -0.105, 0.02, the model's is -0.4, 0.2, 0.6",
        ),
        ({"half_width": 0.2}, r"its half width of the bias windows \(V\) is 0.0625, the model's is 0.2"),
        ({"pixel_nm": 0.3}, r"its pixel size \(nm\) is 0.46875, the model's is 0.3"),
        ({"preparation": {"high_pass": 4.0}}, r"its preparation is high_pass 8.0, .*, the model's is high_pass 4.0"),
        ({"pixel_nm": 0.46, "height": 48, "width": 48, "preparation": {"later": 1}, "reach": 0.3}, None),
        ({"material": None, "biases": None, "half_width": None, "pixel_nm": None, "preparation": None}, None),
    ],
)
def test_fields_of_another_surface_raster_or_preparation_are_told(impurity, changes, words):
    """Their size alone may differ, and what an older file does not say."""
    own = load(impurity).attributes["input"]
    size = {key: value for key, value in (own | changes).items() if value is not None}
    about = ModelMetadata(task="impurity", targets=[{"name": "heat"}, {"name": "pixel"}], input=size)
    with nullcontext() if words is None else pytest.raises(InputError, match=words):
        load_fitting(impurity, about)


def test_an_array_that_a_data_set_lacks_is_no_damage(data):
    with pytest.raises(InputError, match=r"does not hold 'positions' .*: simulate a data set that keeps it"):
        load(data, arrays=["positions"])


@pytest.mark.parametrize(
    ("chains", "split", "cause"),
    [
        (8, {"validation_fraction": 0.99}, "split.validation_fraction is 0.99, give a smaller one"),
        (2, {"folds": 2}, "split.folds is 2, give another"),
        (2, {}, "simulate more states"),
    ],
)
def test_one_state_to_train_on_is_refused_before_any_training(tmp_path, chains, split, cause):
    """It was only when the baselines were fitted, after all epochs."""
    data = _data(tmp_path / "a.zarr", chains=chains, length=1)
    with pytest.raises(InputError, match=f"has 1 state to train on .* expected at least 2: {cause}"):
        load_parts(data, TASK, SplitConfig(unseen_fraction=0, **split))
