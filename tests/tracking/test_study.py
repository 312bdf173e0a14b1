"""A study's trials are counted, continued and recorded, whichever worker dies."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import torch

from stm_models.errors import InputError
from stm_models.search import Choice, Range
from stm_models.training.epochs import diverged
from stm_models.training.memory import exhausted
from tracking import liveness, runs, study, trials
from tracking.store import Store

SPACE = {"rate": Range(1e-4, 1e-1, log=True), "depth": Range(1, 4), "kind": Choice(("a", "b"))}
WORKER = """
import sys, time
from tracking import liveness, store, study, trials
liveness.identity = lambda: ""  # as of another machine: only its heartbeats tell
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


def test_a_training_that_its_parameters_do_not_suit_ends_no_search(local, parent):
    def objective(trial, run):
        rate = trial.suggest_float("rate", 0.0, 1.0)
        if trial.number == 1:
            raise diverged(2, "the validation set", rate)
        if trial.number == 2:
            raise exhausted("while training", torch.device("cpu"))
        return rate

    opened = study.create_study("some diverge", seed=1)
    _run(opened, objective, 3, local, parent)
    assert _states(opened) == ["complete", "fail", "fail", "complete", "complete"]

    def always(trial, run):
        raise diverged(1, "batch 1 of 7", 0.5)

    with pytest.raises(InputError, match="3 trials failed in a row, the last one so: the loss became NaN"):
        _run(opened, always, 5, local, parent)
    assert _states(opened)[5:] == ["fail"] * 3


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
    assert time.monotonic() - start < 120
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
        _run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 5, local, parent)

    study.create_study("unlocked", seed=1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    done = study.create_study("unlocked", seed=1).trials
    assert sum(trial.state.name == "COMPLETE" for trial in done) == 5
    surplus = [trial for trial in done if trial.state.name != "COMPLETE"]
    assert {(trial.state.name, trial.user_attrs.get("error")) for trial in surplus} <= {
        ("FAIL", "one more than asked for")
    }


def test_two_who_run_a_lost_trial_again_count_it_once(local, parent):
    opened = study.create_study("twice", seed=1)
    for _ in range(2):
        opened.add_trial(
            optuna.create_trial(
                state=optuna.trial.TrialState.WAITING, params={"x": 0.5},
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
                system_attrs={"retry_history": [7]},
            )
        )  # fmt: skip
    _run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 3, local, parent)
    assert _states(opened) == ["complete", "fail", "complete", "complete"]
    assert [trial.params["x"] == 0.5 for trial in opened.trials if trial.params] == [True, True, False, False]


def test_a_dead_worker_of_this_machine_is_found_at_once_and_its_trial_goes_on(local, parent, monkeypatch):
    dead = subprocess.run(
        [sys.executable, "-c", "from tracking import liveness; print(liveness.identity())"],
        cwd=study.__file__.rpartition("/tracking/")[0], capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert liveness.gone(dead)
    assert not liveness.gone(liveness.identity())
    assert not liveness.gone("another.machine/1/1")
    assert not liveness.gone("")
    opened = study.create_study("dead", seed=1, heartbeat=600)
    seen = []

    def objective(trial, run):
        seen.append((trial.number, trials.origin(opened.trials[trial.number]), trial.suggest_float("x", 0, 1)))
        if trial.number == 0:
            trial.report(3.0, 1)
            trial.set_user_attr("worker", dead)
            raise SystemExit  # neither told nor failed
        return seen[-1][2]

    left = []
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_end", lambda sink, _: left.append(sink))
        with pytest.raises(SystemExit):
            _run(opened, objective, 2, local, parent)
    assert _states(opened) == ["running"]
    _run(opened, objective, 2, local, parent)
    assert _states(opened) == ["fail", "complete", "complete"]
    assert [number[:2] for number in seen] == [(0, 0), (1, 0), (2, 2)]
    assert seen[1][2] == seen[0][2] != seen[2][2]
    assert opened.trials[1].intermediate_values == {1: 3.0}
    assert runs.get(local, opened.trials[0].user_attrs["run_id"]).outcome == "killed"
    assert runs.get(local, opened.trials[1].user_attrs["run_id"]).tags["trial.origin"] == "0"
    for sink in left:
        sink.end("KILLED", {})  # else it is waited for when the tests end


def test_a_trial_is_given_up_when_workers_keep_dying_before_anything_new(local, parent):
    opened = study.create_study("deadly", seed=1)

    def objective(trial, run):
        past = opened.trials[trial.number]
        if trials.origin(past) == 0:
            if len(past.intermediate_values) < 2:
                trial.report(1.0, len(past.intermediate_values))
            raise KeyboardInterrupt
        return 1.0

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            _run(opened, objective, 1, local, parent)
    # Twice with something new, twice without: three deaths in a row.
    _run(opened, objective, 1, local, parent)
    assert _states(opened) == ["fail"] * 4 + ["complete"]
    assert [trial.user_attrs.get("deaths") for trial in opened.trials] == [None, 1, 1, 2, None]


def test_with_several_objectives_a_trial_that_gets_on_is_not_given_up(local, parent):
    opened = study.create_study("slowly", seed=1, direction=["minimize", "minimize"])

    def objective(trial, run):
        epoch = trials.reported(opened.trials[trial.number]) + 1
        trials.note_epoch(trial, epoch)
        if epoch < 6:
            raise KeyboardInterrupt
        return 1.0, 1.0

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            _run(opened, objective, 1, local, parent)
    _run(opened, objective, 1, local, parent)
    assert _states(opened) == ["fail"] * 5 + ["complete"]
    assert trials.origin(opened.trials[-1]) == 0


def test_with_several_objectives_a_trial_that_never_gets_further_is_given_up(local, parent):
    opened = study.create_study("nowhere near", seed=1, direction=["minimize", "minimize"])
    epochs = iter([3, 2, 3])  # the second one went on from an earlier checkpoint

    def objective(trial, run):
        if (epoch := next(epochs, None)) is None:
            return 1.0, 1.0
        trials.note_epoch(trial, epoch)
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            _run(opened, objective, 1, local, parent)
    _run(opened, objective, 1, local, parent)
    assert _states(opened) == ["fail"] * 3 + ["complete"]
    assert trials.origin(opened.trials[-1]) == 3


def test_runs_that_nobody_works_on_are_closed(local, parent):
    opened = study.create_study("settled", seed=1)
    _run(opened, lambda trial, run: 1.0, 1, local, parent)
    trials.own(opened, parent)
    local.client.set_tag(parent, "process", liveness.identity().rpartition("/")[0] + "/0")
    tags = {"mlflow.parentRunId": parent, "study": "settled"}
    made = {}
    for name, number in (("orphan of a finished trial", 0), ("told nobody", 1), ("alive", 2)):
        made[name] = local.client.create_run(local.experiment("study"), tags={**tags, "trial": str(number)}).info.run_id
    opened.ask()  # lost before it began, but its run says complete
    local.client.set_tag(made["told nobody"], "outcome", "complete")
    local.client.set_terminated(made["told nobody"])
    opened.ask()
    opened._storage.set_trial_user_attr(opened.trials[2]._trial_id, "claimed", 2)
    opened._storage.set_trial_user_attr(opened.trials[2]._trial_id, "worker", liveness.identity())
    trials.settle(opened, local, "study")
    found = {name: (runs.get(local, run).status, runs.get(local, run).outcome) for name, run in made.items()}
    assert found == {
        "orphan of a finished trial": ("KILLED", "killed"),
        "told nobody": ("KILLED", "killed"),
        "alive": ("RUNNING", "running"),
    }
    assert runs.get(local, parent).outcome == "killed"
    assert _states(opened) == ["complete", "fail", "running", "waiting"]


def test_stopped_between_two_trials(local, parent):
    opened = study.create_study("halt", seed=1)
    _run(opened, lambda trial, run: 1.0, 5, local, parent, stop=lambda: len(opened.trials) == 2)
    assert _states(opened) == ["complete"] * 2


def test_several_objectives_have_a_front_and_no_pruning(local, parent):
    def objective(trial, run):
        x = trial.suggest_float("x", 0, 1)
        assert not isinstance(opened.pruner, optuna.pruners.MedianPruner)
        return (x, (1 - x) ** 2)

    opened = study.create_study("both", seed=1, direction=["maximize", "minimize"], pruner="median")
    _run(opened, objective, 5, local, parent)
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
