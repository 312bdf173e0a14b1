"""Any task may draw samples while training: it names the class that does, which the training imports."""

import importlib

import numpy as np
import pytest

from pipelines.learning.network import check, learn
from pipelines.learning.parts import load_parts
from pipelines.settings import SplitConfig
from pipelines.simulating.simulation import simulate
from stm_models.errors import InputError
from stm_models.tasks.impurity.config import ImpuritySimulation
from stm_models.tasks.registry import get
from stm_models.training.batches import Batches
from stm_models.training.config import TrainConfig
from support import toy_batches as drawing
from support import toy_map_task as toy


class Drawn(toy.ToyMapTask):
    where = "support.toy_batches:ToyBatches"

    def on_the_fly(self, attributes):
        return self.where, {"side": attributes["input"]["height"]}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    task, path = Drawn(), tmp_path_factory.mktemp("drawn") / "data.zarr"
    simulate(task, toy.ToyMapConfig(groups=12), path, workers=1, progress=False)
    return load_parts(path, task, SplitConfig())


CONFIG = TrainConfig(
    network="fieldnet", options={"width": 4, "dilations": [1]}, loss="focal_heat", epochs=3, batch_size=4,
    epoch_samples=10, learning_rate=1e-2, weight_decay=0, device="cpu", on_the_fly=True,
)  # fmt: skip


def test_a_task_trains_on_samples_of_its_own_generator(parts, monkeypatch):
    monkeypatch.setattr(drawing.ToyBatches, "made", [])
    learnt = learn(parts.task, CONFIG, parts)
    (made,) = drawing.ToyBatches.made
    assert (made.count, made.size, made.side, made.epochs) == (3, 4, toy.SIDE, [1, 2, 3])
    assert np.isfinite([entry["train_loss"] for entry in learnt.chosen.history]).all()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("support.toy_batches:Nothing", "cannot be imported"),
        ("support.toy_map_task:ToyMapTask", "expected a class derived from .*Batches"),
    ],
)
def test_a_generator_that_cannot_be_used_is_told_before_the_training(parts, monkeypatch, where, said):
    monkeypatch.setattr(Drawn, "where", where)
    with pytest.raises(InputError, match=f"what draws samples for task toy-map, {where}, .*{said}"):
        check(parts.task, CONFIG, parts)


def test_impurity_names_a_generator_that_is_there():
    config = ImpuritySimulation(generator="friedel").model_dump(mode="json")
    where, parameters = get("impurity").on_the_fly({"config": config})
    assert parameters["material"] == config["material"]
    module, _, name = where.partition(":")
    assert issubclass(getattr(importlib.import_module(module), name), Batches)
