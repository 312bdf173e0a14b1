"""A run's data set, found again: where it was, moved, gone, and another one in its place."""

import shutil

import numpy as np
import pytest

from pipelines import train
from pipelines.inspecting import representation
from pipelines.learning.fitting import Measured
from pipelines.learning.parts import load_parts
from pipelines.learning.training_data import training_data
from pipelines.promoting import held_out
from pipelines.settings import SplitConfig
from pipelines.simulating.simulation import simulate
from stm_models.errors import InputError
from stm_models.tasks import registry
from stm_models.training.config import TrainConfig
from support import toy_map_task as toy
from tracking import datasets, runs
from tracking.store import connect

TASK = toy.ToyMapTask()
SPLIT = SplitConfig(validation_fraction=0.3, seed=5)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A store, the row of a run, its data set, and another one."""
    monkeypatch.setattr(registry, "_TASKS", {**registry._TASKS, TASK.name: TASK})
    ours, other = tmp_path / "data.zarr", tmp_path / "other.zarr"
    for seed, path in enumerate((ours, other)):
        simulate(TASK, toy.ToyMapConfig(groups=12, seed=seed), path, workers=1, progress=False)
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    with runs.start(store, TASK.name, "train") as run:
        config = TrainConfig(network="fieldnet", options={"width": 4, "dilations": [1]}, loss="focal_heat")
        sections = {"split": SPLIT.model_dump(mode="json"), "train": config.model_dump(mode="json")}
        run.config({"task": TASK.name, "preset": "none", **sections})
        run.tags({"data.path": str(ours)})
        parts = load_parts(ours, TASK, SPLIT)
        datasets.log(run, {**parts.samples.attributes, "samples": 12}, ours)
    return store, runs.get(store, run.id), ours, other


def test_it_is_split_as_the_run_split_it(made):
    store, row, ours, _ = made
    recorded, wanted = training_data(store, row), load_parts(ours, TASK, SPLIT)
    parts = recorded.parts()
    for name in ("train", "validation"):
        numbers = getattr(wanted, name).coordinates["sample"]
        np.testing.assert_array_equal(getattr(parts, name).coordinates["sample"], numbers)
        np.testing.assert_array_equal(getattr(recorded.divided(parts.samples), name), numbers)
    np.testing.assert_array_equal(recorded.known(parts), wanted.train.coordinates["sample"])


def test_one_that_was_moved_is_the_same_where_it_is_said_to_be(made, tmp_path):
    store, row, ours, _ = made
    shutil.move(ours, tmp_path / "moved.zarr")
    recorded = training_data(store, row)
    said = rf"run {row.id} is not at {ours}: simulate it again \(recipe {row.tags['data.recipe'][:12]}\)"
    with pytest.raises(InputError, match=f"{said}.* or say where it is with --data$"):
        recorded.parts()
    with pytest.raises(InputError, match=r"not at nowhere.zarr: .* with --background$"):
        recorded.parts("nowhere.zarr", "--background")
    assert len(recorded.parts(tmp_path / "moved.zarr").samples) == 12


def test_another_one_in_its_place_is_told_by_its_digest(made):
    store, row, ours, other = made
    recorded = training_data(store, row)
    digest = load_parts(other, TASK, SPLIT).samples.attributes["digest"]
    said = f"has digest {digest[:12]}, run {row.id} was trained on {row.tags['data.digest'][:12]} .then at {ours}"
    with pytest.raises(InputError, match=f"{other} {said}"):
        recorded.parts(other)
    shutil.rmtree(ours)
    shutil.move(other, ours)
    with pytest.raises(InputError, match=f"{ours} {said}"):
        recorded.parts()


def test_whoever_needs_it_says_so_in_the_same_words(made):
    store, row, ours, other = made
    elsewhere = load_parts(other, TASK, SPLIT)
    with pytest.raises(InputError, match=f"{other} has digest .* was trained on"):
        train._same_data(store, row, "", elsewhere, Measured())
    with pytest.raises(InputError, match=f"{other} has digest .* was trained on"):
        held_out.held_out(store, TASK, row, None, other)
    shutil.rmtree(ours)
    with pytest.raises(InputError, match="simulate it again"):
        held_out.held_out(store, TASK, row, None, None)
    with pytest.raises(InputError, match="simulate it again"):
        representation.shown(representation.Trained(row.id, None, training_data(store, row)), None)
