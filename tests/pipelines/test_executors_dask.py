"""A real Dask cluster: a scheduler and worker processes of this machine."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

import campaign
from pipelines import executors, settings
from pipelines.simulating.simulation import simulate
from pipelines.tuning.workers import run_workers
from stm_models.data.dataset import load
from stm_models.errors import InputError
from support import toy_task

distributed = pytest.importorskip("distributed", reason="needs the package distributed (stm-lab[cluster])")

TASK = toy_task.ToyTask()
SLOW = toy_task.ToyConfig(length=8, seconds=0.2)


def stop(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def dask(folder, *arguments):
    """Start one of Dask's own commands."""
    env = {
        "PYTHONPATH": campaign.PYTHONPATH,
        "OMP_NUM_THREADS": "4",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


class Cluster:
    """A scheduler that forgives no death, with workers; only a nanny starts its worker again."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = dask(folder, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.workers = []

    def add(self, threads=1, nanny=False):
        self.workers.append(
            dask(
                self.folder, "worker", self.address, "--nthreads", str(threads), "--no-dashboard",
                "--nanny" if nanny else "--no-nanny",
                "--host", "127.0.0.1", "--local-directory", str(self.folder), "--memory-limit", "0",
            )
        )  # fmt: skip
        return self.workers[-1]

    def close(self):
        for process in (*self.workers, self.scheduler):
            stop(process)


@pytest.fixture
def cluster(tmp_path_factory):
    running = Cluster(tmp_path_factory.mktemp("dask"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Two workers for tests that do them no harm."""
    running = Cluster(tmp_path_factory.mktemp("dask"))
    running.add()
    running.add()
    yield running
    running.close()


def run(out, cluster, config=SLOW, task=TASK):
    return simulate(task, config, out, workers=1, executor=f"dask:{cluster.address}", progress=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    return simulate(TASK, SLOW, out, workers=1, progress=False)


def test_a_worker_killed_mid_run_changes_nothing(tmp_path, cluster, undisturbed):
    out = tmp_path / "a.zarr"
    victim, *_ = [cluster.add(), cluster.add(), cluster.add(threads=2)]
    left_at = []

    def kill():
        campaign.wait_for(lambda: out.exists() and campaign.finished(out) >= 4)
        victim.kill()
        victim.wait()
        left_at.append(campaign.finished(out))

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run(out, cluster)
    killer.join()
    assert victim.returncode == -signal.SIGKILL
    assert left_at[0] < 24, "the kill came too late to mean anything"
    assert summary.digest == undisturbed.digest
    assert load(out, verify=True).attributes["digest"] == undisturbed.digest
    assert not campaign.litter(out)
    # What the cluster said of threads does not count.
    assert set(load(out).coordinates["residual"]) == {1.0}


def test_the_mean_field_gives_the_same_data_set_as_local_processes(tmp_path, shared):
    assignments = ["simulate.replicates=2", "simulate.interaction_count=2"]
    chosen = settings.load("hubbard", "test", assignments=assignments)
    local = simulate("hubbard", chosen.simulate, tmp_path / "a.zarr", workers=1, progress=False)
    there = run(tmp_path / "b.zarr", shared, chosen.simulate, chosen.task)
    assert (there.recipe, there.digest) == (local.recipe, local.digest)


def test_an_interrupt_stops_the_workers_too(tmp_path, shared, undisturbed):
    out = tmp_path / "a.zarr"
    process = campaign.start(out, SLOW, executor=f"dask:{shared.address}")
    campaign.wait_for(lambda: campaign.finished(out) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=30)
    assert "of 24 groups are kept" in text
    time.sleep(0.5)
    before = campaign.finished(out)
    time.sleep(0.5)
    assert campaign.finished(out) == before < 24
    assert run(out, shared).digest == undisturbed.digest
    assert not campaign.litter(out)


def test_a_group_that_kills_every_worker_is_given_up(tmp_path, cluster):
    cluster.add(nanny=True)
    cluster.add(nanny=True)
    with pytest.raises(InputError, match=r"group 5 \(U=1, r=1.25\): Dask workers were killed"):
        run(tmp_path / "a.zarr", cluster, toy_task.ToyConfig(fail=5, failure="killed", chains=2))
    assert campaign.finished(tmp_path / "a.zarr") == 5


def test_a_scheduler_that_goes_away_is_one_line(tmp_path, cluster):
    cluster.add()
    out = tmp_path / "a.zarr"

    def kill():
        campaign.wait_for(lambda: out.exists() and campaign.finished(out) >= 1)
        cluster.scheduler.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InputError, match=r"the Dask scheduler tcp://.* is gone"):
        run(out, cluster, toy_task.ToyConfig(length=500, seconds=0.05))
    killer.join()
    campaign.wait_for(lambda: not campaign.litter(out))  # a worker may be writing its last group


def test_nobody_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr(executors.dask, "CONNECT", 1)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        executors.create("dask:tcp://127.0.0.1:9", 1, tmp_path / "a.zarr")


def test_workers_that_do_not_fit_are_refused(tmp_path, cluster, monkeypatch):
    spec = f"dask:{cluster.address}"
    monkeypatch.setattr(executors.dask, "PATIENCE", 0.5)
    with pytest.raises(InputError, match="has no worker after"):
        executors.create(spec, 1, tmp_path / "a.zarr")
    monkeypatch.undo()
    cluster.add()
    # This machine sees a file that the workers do not.
    monkeypatch.setattr(Path, "touch", lambda self: None)
    with pytest.raises(InputError, match=r"does not see the files of .*: give --out on .* share under one path"):
        executors.create(spec, 1, tmp_path / "a.zarr")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"does not see the files of .*: start the command in a folder on a file sys"):
        run_workers(
            optuna.create_study(), [["hubbard"]], executor=spec, store_uri="", parent="p", n_trials=1, label="mae"
        )
    monkeypatch.undo()
    monkeypatch.setattr(executors.dask, "__version__", "99")
    with pytest.raises(InputError, match=r"has stm-lab .*, here is 99: use one environment"):
        executors.create(spec, 1, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())
