"""Which labels of a data set can be split by state."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.learning.parts import load_parts
from pipelines.settings import SplitConfig
from stm_models.data.store import Store, create
from stm_models.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1]))
toy_task = importlib.import_module("toy_task")
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
