"""Several seeds or folds: what a repetition is given, keeps and goes on with; the trainings themselves are left out."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import train
from pipelines.learning import repeats
from pipelines.learning.fitting import Fitted, Measured
from pipelines.learning.network import checkpoint_of
from pipelines.learning.parts import divide, load_parts
from pipelines.settings import (
    CalibrateConfig,
    DemoConfig,
    EvaluateConfig,
    Settings,
    SplitConfig,
    TuneConfig,
)
from pipelines.simulating.simulation import simulate
from pipelines.tuning.search import Search
from stm_models.errors import InputError
from stm_models.training.config import TrainConfig
from support import toy_map_task as toy
from tracking import runs
from tracking.store import connect


@pytest.fixture
def repeat(tmp_path, monkeypatch):
    """Repeat trainings of a small data set; ``fit`` stands for each."""
    monkeypatch.chdir(tmp_path)
    task, config = toy.ToyMapTask(), toy.ToyMapConfig(groups=12)
    training = TrainConfig(network="fieldnet", loss="focal_heat")
    sections = (config, SplitConfig(), training, TuneConfig(), EvaluateConfig(states=6), DemoConfig())
    chosen = Settings(task, "none", *sections, calibrate=CalibrateConfig(states=12))
    simulate(task, config, tmp_path / "data.zarr", workers=1, progress=False)
    parts = load_parts(tmp_path / "data.zarr", task, chosen.split)
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")

    def call(fit, kind="seeds", **more):
        monkeypatch.setattr(repeats, "fit", fit)
        return repeats.repeat(store, chosen, parts, kind, 3, **more)

    call.store, call.task = store, task.name
    call.chosen, call.parts = chosen, parts
    return call


def test_a_nested_run_goes_on_from_what_it_kept_while_the_store_was_away(repeat):
    kept = []

    def interrupted(run, *_, checkpoint, **__):
        kept.append(checkpoint)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repeat(interrupted)
    (child,) = (row for row in runs.find(repeat.store, repeat.task) if "repeat" in row.tags)
    assert kept == [checkpoint_of(child.id)]
    away = checkpoint_of(f"{runs.PREFIX}{child.tags[runs.RUN_TAG]}")
    away.parent.mkdir()
    away.touch()

    def fit(run, *_, checkpoint, **__):
        kept.append(checkpoint)
        return Fitted(run.id, "fieldnet", {"hits": 1.0})

    assert child.parent is not None
    repeat(fit, resume=child.parent)
    assert kept[1] == away
    assert runs.get(repeat.store, child.id).status == "FINISHED"
    assert not away.exists()


def test_a_nested_run_that_is_resumed_by_its_own_id_is_taken_by_its_parent(repeat, monkeypatch):
    trained = []

    def fit(run, settings, config, *_, **__):
        trained.append(config.seed)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        return Fitted(run.id, "fieldnet", {"hits": 1.0})

    with pytest.raises(KeyboardInterrupt):
        repeat(fit)
    (child,) = (row for row in runs.find(repeat.store, repeat.task) if row.tags.get("repeat") == "seed 1")
    config = repeat.chosen.train.model_copy(update={"seed": 1})
    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(train, "_same_data", lambda *_: None)  # the toy task is none of the registered ones
    train.recorded(repeat.store, replace(repeat.chosen, train=config), repeat.parts, Measured(), resume=child.id)
    assert runs.get(repeat.store, child.id).status == "FINISHED"
    assert child.parent is not None
    found = repeat(fit, resume=child.parent)
    assert trained == [0, 1, 1, 2]
    assert child.id in {each["run_id"] for each in found["runs"]}


def test_after_a_search_the_same_command_goes_on_with_its_seeds(repeat, monkeypatch, capsys):
    trained = []

    def fit(run, settings, config, *_, **__):
        if config.seed == 1 and trained.count(1) == 0:
            trained.append(1)
            raise KeyboardInterrupt
        trained.append(config.seed)
        return Fitted(run.id, "fieldnet", {"hits": 1.0})

    def retrained(identity="ab"):
        search = SimpleNamespace(
            store=repeat.store, chosen=repeat.chosen, parts=repeat.parts, name="s",
            found=SimpleNamespace(user_attrs={"identity": identity}),
        )  # fmt: skip
        best = {"number": 3, "train": repeat.chosen.train.model_dump(mode="json")}
        return Search._retrained(search, {"best": best}, 3)

    monkeypatch.setattr(repeats, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        retrained()
    (parent,) = (row.id for row in runs.find(repeat.store, repeat.task) if repeats.repeated(row))
    said = capsys.readouterr().out
    assert f"run {parent}: if interrupted, run the same command again" in said
    assert "--resume" not in said
    assert retrained()["run_id"] == parent
    assert trained == [0, 1, 1, 2]
    again, other = retrained()["run_id"], retrained("cd")["run_id"]
    assert len({parent, again, other}) == 3, "what is finished is not begun again, and another study has others"


def test_of_folds_one_is_in_memory_at_a_time(repeat):
    seen = []

    def fit(run, settings, config, parts, **_):
        assert not any(before() for before in seen)
        seen.append(weakref.ref(parts))
        return Fitted(run.id, "fieldnet", {"hits": 1.0})

    repeat(fit, "folds")
    assert len(seen) == 3


def test_folds_that_leave_one_state_to_train_on_are_refused_before_the_first_training(repeat, monkeypatch):
    def fit(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr(repeats, "fit", fit)
    samples = repeat.parts.samples
    three = samples.subset(np.flatnonzero(samples.coordinates["group"] < 3))
    few = divide(three, repeat.chosen.task, repeat.chosen.split)
    with pytest.raises(InputError, match=r"1 state to train on and 2 that validate.*split.folds is 2, give another"):
        repeats.repeat(repeat.store, repeat.chosen, few, "folds", 2)


def test_names_and_numbers_of_the_summary_stand_apart():
    metrics = {"mae": {"mean": 0.1, "std": 0.01}, "kernel_ridge.unseen_atom_width_mae_U": {"mean": 0.2, "std": 0.02}}
    result = {"run_id": "r", "runs": [{}, {}], "kind": "seeds", "network": "mlp", "metrics": metrics, "best": None}
    rows = [line.split() for line in repeats.describe(result).splitlines()[1:]]
    assert rows == [["mae", "0.1", "±", "0.01"], ["kernel_ridge.unseen_atom_width_mae_U", "0.2", "±", "0.02"]]
