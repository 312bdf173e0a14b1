"""A study's trials are drawn, counted, continued and recorded."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pytest
import torch

from stm_models.errors import InputError
from stm_models.search import Choice, Range
from stm_models.training.epochs import diverged
from stm_models.training.memory import exhausted
from support import searches
from tracking import runs, study
from tracking.store import Store

SPACE = {"rate": Range(1e-4, 1e-1, log=True), "depth": Range(1, 4), "kind": Choice(("a", "b"))}


def _value(trial, run):
    return study.suggest(trial, SPACE, "train")["rate"]


def test_repeated_command_continues(local, parent):
    seen = []
    searches.run(study.create_study("again", seed=1), _value, 3, local, parent, report=seen.append)
    assert [row.number for row in seen] == [0, 1, 2]
    opened = study.create_study("again", seed=1)
    searches.run(opened, _value, 5, local, parent, report=seen.append)
    assert [row.number for row in seen] == [0, 1, 2, 3, 4]
    searches.run(opened, _value, 5, local, parent, report=seen.append)
    assert len(seen) == 5
    assert len({trial.value for trial in opened.trials}) == 5
    ids = [trial.user_attrs["run_id"] for trial in opened.trials]
    assert [row.run_id for row in seen] == ids
    assert {row.id for row in runs.find(local, "study", parent=parent)} == set(ids)
    first = runs.get(local, ids[0])
    assert float(first.params["train.rate"]) == seen[0].params["train.rate"] == seen[0].value
    assert (first.outcome, first.tags["study"], first.tags["trial"]) == ("complete", "again", "0")
    shares = study.importances(opened)
    assert shares is not None
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "train.rate"


def test_same_seed_same_draws(local, parent):
    drawn = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        opened = study.create_study(name, seed=seed, pruner="none")
        searches.run(opened, _value, 2, local, parent)
        drawn.append([trial.value for trial in opened.trials])
        assert study.importances(opened) is None
    assert drawn[0] == drawn[1] != drawn[2]


def test_commands_on_one_study_draw_different_trials(local):
    def draw(number):
        return study.create_study("two commands", seed=5, sampler="random").sampler._rng.rng.random()

    first = np.random.RandomState(np.random.SeedSequence([5, 0, 0]).generate_state(1)[0]).random()
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(draw, range(4)))
    assert len(set(drawn)) == 4
    assert first in drawn
    assert study.create_study("one command", seed=5, sampler="random").sampler._rng.rng.random() == first


def test_a_study_that_begins_from_an_earlier_one_draws_anew(local, parent):
    drawn = []
    for name, earlier in (("one", None), ("two", "one"), ("three", "one"), ("four", "two")):
        opened = study.create_study(name, seed=5, earlier=earlier)
        searches.run(opened, _value, 2, local, parent)
        drawn.append({trial.value for trial in opened.trials})
    assert drawn[1] == drawn[2]
    assert not drawn[1] & drawn[0]
    assert not drawn[3] & (drawn[0] | drawn[1])


def test_values_fit_the_space(local, parent):
    seen = []

    def objective(trial, run):
        seen.append(study.suggest(trial, SPACE, "net"))
        return 1.0

    searches.run(study.create_study("space", seed=3), objective, 4, local, parent)
    for values in seen:
        assert set(values) == set(SPACE)
        assert 1e-4 <= values["rate"] <= 1e-1
        assert isinstance(values["depth"], int)
        assert values["kind"] in ("a", "b")


def test_pruned_and_failed_trials_are_seen_as_such(local, parent):
    def objective(trial, run):
        run.metrics({"mae": 1.0}, trial.number)
        if trial.number == 1:
            raise optuna.TrialPruned
        if trial.number == 2:
            raise RuntimeError("no luck")
        return float("nan") if trial.number == 3 else trial.suggest_float("x", 0, 1)

    opened = study.create_study("mixed", seed=1)
    searches.run(opened, objective, 3, local, parent)
    assert searches.states(opened) == ["complete", "pruned", "fail", "fail", "complete"]
    found = {row.name: (row.status, row.outcome) for row in runs.find(local, "study", parent=parent)}
    assert found == {
        "trial-000": ("FINISHED", "complete"),
        "trial-001": ("KILLED", "pruned"),
        "trial-002": ("FAILED", "failed"),
        "trial-003": ("FAILED", "failed"),
        "trial-004": ("FINISHED", "complete"),
    }


def test_hopeless_objective_gives_up(local, parent):
    def broken(trial, run):
        raise RuntimeError("always")

    def mistaken(trial, run):
        raise InputError("no such network")

    opened = study.create_study("hopeless", seed=1)
    with pytest.raises(RuntimeError, match="always"):
        searches.run(opened, broken, 5, local, parent)
    assert len(opened.trials) == 3
    with pytest.raises(InputError, match="no such network"):
        searches.run(opened, mistaken, 5, local, parent)
    assert len(opened.trials) == 4


def test_a_training_that_its_parameters_do_not_suit_ends_no_search(local, parent):
    def objective(trial, run):
        rate = trial.suggest_float("rate", 0.0, 1.0)
        if trial.number == 1:
            raise diverged(2, "the validation set", rate)
        if trial.number == 2:
            raise exhausted("while training", torch.device("cpu"))
        return rate

    opened = study.create_study("some diverge", seed=1)
    searches.run(opened, objective, 3, local, parent)
    assert searches.states(opened) == ["complete", "fail", "fail", "complete", "complete"]

    def always(trial, run):
        raise diverged(1, "batch 1 of 7", 0.5)

    with pytest.raises(InputError, match="3 trials failed in a row, the last one so: the loss became NaN"):
        searches.run(opened, always, 5, local, parent)
    assert searches.states(opened)[5:] == ["fail"] * 3


def test_two_workers_share_the_count(local, parent):
    study.create_study("shared", seed=1)

    def work(number):
        opened = study.create_study("shared", seed=1, worker=number)
        searches.run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 5, local, parent)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    opened = study.create_study("shared", seed=1)
    assert searches.states(opened) == ["complete"] * 5
    assert len({trial.value for trial in opened.trials}) == 5


def test_interrupt_stops_the_search(local, parent):
    def objective(trial, run):
        raise KeyboardInterrupt

    opened = study.create_study("stopped", seed=1)
    with pytest.raises(KeyboardInterrupt):
        searches.run(opened, objective, 2, local, parent)
    assert searches.states(opened) == ["fail"]


def test_study_database_lies_beside_a_local_store(tmp_path):
    local = Store(f"sqlite:///{tmp_path}/my runs/mlflow.db", None, None)
    assert study.beside(local) == f"sqlite:///{tmp_path}/my runs/optuna.db"
    (tmp_path / "my runs").mkdir()
    study.create_study("here", study.beside(local), seed=1)
    assert (tmp_path / "my runs" / "optuna.db").is_file()
    assert not (tmp_path / "optuna.db").exists()
    assert study.beside(Store("http://127.0.0.1:5000", None, None)) == "sqlite:///optuna.db"


def test_mistakes(local, tmp_path):
    with pytest.raises(InputError, match="unknown pruner 'hyper'"):
        study.create_study("x", seed=1, pruner="hyper")
    with pytest.raises(InputError, match=r"unknown sampler 'tpee'.*did you mean 'tpe'"):
        study.create_study("x", seed=1, sampler="tpee")
    with pytest.raises(InputError, match="takes one objective, got 2"):
        study.create_study("x", seed=1, sampler="cmaes", direction=["minimize", "minimize"])
    with pytest.raises(InputError, match=r"unknown study in .*'nowhere'"):
        study.open_study("nowhere")
    with pytest.raises(InputError, match="unknown direction"):
        study.create_study("x", seed=1, direction="down")
    with pytest.raises(InputError, match="belongs to another program"):
        study.create_study("x", local.uri, seed=1)
    with pytest.raises(InputError, match="cannot use the study storage"):
        study.create_study("x", "nonsense", seed=1)
    study.create_study("x", seed=1)
    with pytest.raises(InputError, match="is to minimize"):
        study.create_study("x", seed=1, direction="maximize")


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite:///:memory:"])
def test_a_storage_in_memory_is_refused(storage):
    """Every process would have a study of its own, gone with it."""
    for make in (lambda: study.create_study("x", storage, seed=1), lambda: study.open_study("x", storage)):
        with pytest.raises(InputError, match=r"names no file: expected sqlite:///FILE\.db"):
            make()


def test_without_a_lock_there_are_as_many_trials_as_asked_for(local, parent):
    def work(number):
        opened = study.create_study("unlocked", seed=1, worker=number, sampler="random")
        opened.lock = None  # as behind a proxy
        searches.run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 5, local, parent)

    study.create_study("unlocked", seed=1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    done = study.create_study("unlocked", seed=1).trials
    assert sum(trial.state.name == "COMPLETE" for trial in done) == 5
    surplus = [trial for trial in done if trial.state.name != "COMPLETE"]
    assert {(trial.state.name, trial.user_attrs.get("error")) for trial in surplus} <= {
        ("FAIL", "one more than asked for")
    }


def test_stopped_between_two_trials(local, parent):
    opened = study.create_study("halt", seed=1)
    searches.run(opened, lambda trial, run: 1.0, 5, local, parent, stop=lambda: len(opened.trials) == 2)
    assert searches.states(opened) == ["complete"] * 2


def test_several_objectives_have_a_front_and_no_pruning(local, parent):
    def objective(trial, run):
        x = trial.suggest_float("x", 0, 1)
        assert not isinstance(opened.pruner, optuna.pruners.MedianPruner)
        return (x, (1 - x) ** 2)

    opened = study.create_study("both", seed=1, direction=["maximize", "minimize"], pruner="median")
    searches.run(opened, objective, 5, local, parent)
    best = max(study.rows(opened), key=lambda row: row.values[0])
    assert best.value == best.params["x"]
    assert [trial.number for trial in opened.best_trials] == [best.number]
    assert study.importances(opened) == {"x": 1.0}
    with pytest.raises(InputError, match="is to maximize and minimize"):
        study.create_study("both", seed=1)


def test_a_data_base_whose_writer_was_killed_in_the_middle_is_opened(tmp_path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    study.create_study("left", storage, seed=1)
    writer = (
        "import os, sqlite3; found = sqlite3.connect('optuna.db', isolation_level=None); "
        "found.execute('PRAGMA cache_size = 1'); found.execute('BEGIN'); found.execute('CREATE TABLE big (x)'); "
        "found.executemany('INSERT INTO big VALUES (?)', [('x' * 900,)] * 500); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", writer], cwd=tmp_path, check=False)
    assert (tmp_path / "optuna.db-journal").stat().st_size > 0
    assert study.open_study("left", storage).trials == []
