from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest

from stm_models.errors import InputError
from stm_models.search import Choice, Range
from tracking import runs, study, trials
from tracking.store import Store

SPACE = {"rate": Range(1e-4, 1e-1, log=True), "depth": Range(1, 4), "kind": Choice(("a", "b"))}
WORKER = """
import sys, time
from tracking import store, study, trials
def objective(trial, run):
    trial.suggest_float("x", 0, 1)
    print(run.id, flush=True)
    time.sleep(600)
opened = store.connect(sys.argv[1])
trials.run_trials(study.create_study("killed", seed=1, heartbeat=1), objective, 3, store=opened,
                 experiment="study", parent=sys.argv[2])
"""


@pytest.fixture
def parent(local):
    return local.client.create_run(local.experiment("study")).info.run_id


def _run(opened, objective, n_trials, local, parent, **more):
    trials.run_trials(opened, objective, n_trials, store=local, experiment="study", parent=parent, **more)


def _value(trial, run):
    return study.suggest(trial, SPACE, "train")["rate"]


def _states(opened):
    return [trial.state.name.lower() for trial in opened.trials]


def test_repeated_command_continues(local, parent):
    seen = []
    _run(study.create_study("again", seed=1), _value, 3, local, parent, report=seen.append)
    assert [row.number for row in seen] == [0, 1, 2]
    opened = study.create_study("again", seed=1)
    _run(opened, _value, 5, local, parent, report=seen.append)
    assert [row.number for row in seen] == [0, 1, 2, 3, 4]
    _run(opened, _value, 5, local, parent, report=seen.append)
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
        _run(opened, _value, 2, local, parent)
        drawn.append([trial.value for trial in opened.trials])
        assert study.importances(opened) is None
    assert drawn[0] == drawn[1] != drawn[2]


def test_values_fit_the_space(local, parent):
    seen = []

    def objective(trial, run):
        seen.append(study.suggest(trial, SPACE, "net"))
        return 1.0

    _run(study.create_study("space", seed=3), objective, 4, local, parent)
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
    _run(opened, objective, 3, local, parent)
    assert _states(opened) == ["complete", "pruned", "fail", "fail", "complete"]
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
        _run(opened, broken, 5, local, parent)
    assert len(opened.trials) == 3
    with pytest.raises(InputError, match="no such network"):
        _run(opened, mistaken, 5, local, parent)
    assert len(opened.trials) == 4


def test_killed_worker_loses_nothing(local, parent, tmp_path, start_script):
    worker = start_script(WORKER, local.uri, parent, folder=tmp_path)
    assert worker.stdout is not None
    lost = worker.stdout.readline().strip()
    worker.kill()
    worker.wait()
    opened = study.create_study("killed", seed=2, heartbeat=1)
    assert _states(opened) == ["running"]
    start = time.monotonic()
    _run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 3, local, parent)
    assert time.monotonic() - start < 30
    assert _states(opened)[0] == "fail"
    assert _states(opened).count("complete") == 3
    first, *others = opened.trials
    assert any(trial.params == first.params for trial in others), "the lost trial is run again"
    assert (runs.get(local, lost).status, runs.get(local, lost).outcome) == ("KILLED", "killed")


def test_two_workers_share_the_count(local, parent):
    study.create_study("shared", seed=1)

    def work(number):
        opened = study.create_study("shared", seed=1, worker=number)
        _run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 5, local, parent)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    opened = study.create_study("shared", seed=1)
    assert _states(opened) == ["complete"] * 5
    assert len({trial.value for trial in opened.trials}) == 5


def test_trial_lost_before_its_first_sign_of_life(local, parent):
    opened = study.create_study("early", seed=1)
    with pytest.warns(UserWarning, match="Heartbeat"):
        opened.ask()
    _run(opened, _value, 2, local, parent)
    assert _states(opened) == ["fail", "complete", "complete"]


def test_interrupt_stops_the_search(local, parent):
    def objective(trial, run):
        raise KeyboardInterrupt

    opened = study.create_study("stopped", seed=1)
    with pytest.raises(KeyboardInterrupt):
        _run(opened, objective, 2, local, parent)
    assert _states(opened) == ["fail"]


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
    with pytest.raises(InputError, match="unknown direction"):
        study.create_study("x", seed=1, direction="down")
    with pytest.raises(InputError, match="belongs to another program"):
        study.create_study("x", local.uri, seed=1)
    with pytest.raises(InputError, match="cannot use the study storage"):
        study.create_study("x", "nonsense", seed=1)
    study.create_study("x", seed=1)
    with pytest.raises(InputError, match="is to minimize"):
        study.create_study("x", seed=1, direction="maximize")
