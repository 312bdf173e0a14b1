"""A study in a real PostgreSQL server, and behind Optuna's gRPC proxy in front of it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stm_models.errors import InputError
from support import postgresql_server
from tracking import store, study, trials
from tracking.snapshot import Reader

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sys, time
from tracking import store, study, trials
number, seconds = int(sys.argv[4]), float(sys.argv[5])
def objective(trial, run):
    x = trial.suggest_float("x", 0, 1)
    trial.report(x, 1)
    time.sleep(seconds)
    return x
opened = store.connect(sys.argv[1])
found = study.create_study("shared", sys.argv[2], seed=1, worker=number, sampler="random")
print("ready", flush=True)
trials.run_trials(found, objective, 12, store=opened, experiment="study", parent=sys.argv[3])
"""
PROXY = """
import sys, optuna
storage = optuna.storages.RDBStorage(sys.argv[1])
optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def postgresql():
    with postgresql_server.serve() as address:
        yield address


@pytest.fixture
def local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return store.connect(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def start():
    started = []

    def call(code, *arguments):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def test_workers_share_a_study_and_one_is_killed(postgresql, local, start):
    parent = local.client.create_run(local.experiment("study")).info.run_id
    found = study.create_study("shared", postgresql, seed=1, sampler="random")
    trials.own(found, parent)
    workers = [start(WORKER, local.uri, postgresql, parent, str(n), "0.05" if n else "600") for n in range(3)]
    assert all(worker.stdout.readline() == "ready\n" for worker in workers)
    end = time.monotonic() + 60
    stuck = None
    while stuck is None and time.monotonic() < end:
        for trial in found.get_trials(deepcopy=False):
            who = trial.user_attrs.get("worker", "")
            if trial.intermediate_values and f"/{workers[0].pid}/" in who:
                stuck = trial
        time.sleep(0.05)
    assert stuck is not None
    workers[0].kill()
    assert [worker.wait(60) for worker in workers[1:]] == [0, 0]
    trials.settle(found, local, "study")
    done = found.trials
    assert trials.count(found) == 12
    assert done[stuck.number].state.name == "FAIL"
    again = [trial for trial in done if trial.system_attrs.get("retry_history") == [stuck.number]]
    assert [trial.params for trial in again] == [stuck.params]
    assert [trial.state.name for trial in again] == ["COMPLETE"]
    assert len(done) == 13


def test_a_proxy_answers_for_the_database(postgresql, local, start):
    parent = local.client.create_run(local.experiment("study")).info.run_id
    port = postgresql_server.free_port()
    proxy = start(PROXY, postgresql, str(port))
    postgresql_server.wait(port, proxy)
    address = f"grpc://127.0.0.1:{port}"
    found = study.create_study("proxied", address, seed=1)
    arguments = {"store": local, "experiment": "study", "parent": parent}
    assert found.lock is None
    trials.run_trials(found, lambda trial, run: trial.suggest_float("x", 0, 1), 2, **arguments)
    assert trials.count(study.open_study("proxied", postgresql)) == 2
    with pytest.raises(InputError, match="unknown study"):
        study.open_study("another", address)


def test_a_database_that_does_not_answer_is_told():
    with pytest.raises(InputError, match=r"cannot use the study storage postgresql://stm:\*\*\*@127"):
        study.create_study("x", f"postgresql://stm:secret@127.0.0.1:{postgresql_server.free_port()}/none", seed=1)
    with pytest.raises(InputError, match="no proxy answers"):
        study.create_study("x", f"grpc://127.0.0.1:{postgresql_server.free_port()}", seed=1)
    with pytest.raises(InputError, match="grpc://HOST:PORT"):
        study.create_study("x", "grpc://nowhere", seed=1)


def test_the_page_reads_times_in_nanoseconds_and_infinities():
    with postgresql_server.serve() as address:  # one of its own: Optuna and MLflow call a table of theirs the same
        opened = store.connect(address)
        run = opened.client.create_run(opened.experiment("nano"), start_time=time.time_ns()).info.run_id
        for number in range(8):
            opened.client.log_metric(run, f"m{number}", math.inf, timestamp=time.time_ns())
        reader = Reader(opened)
        assert len(reader.read("nano").by_id[run].metrics) == 8
        opened.client.log_metric(run, "m0", 0.5, timestamp=time.time_ns())
        assert reader.read("nano").by_id[run].metrics["m0"] == 0.5
