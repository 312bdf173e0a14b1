"""`stm tune` with workers that are tasks of a real Dask cluster, and jobs of a real SLURM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines import settings
from pipelines.cli import main
from pipelines.simulating.simulation import simulate
from tracking import runs, study
from tracking.store import connect

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("tuning")
    chosen = settings.load("hubbard", "test", assignments=["simulate.interaction_count=6;simulate.replicates=4"])
    simulate(chosen.task, chosen.simulate, found / "data.zarr", workers=1, progress=False)
    return found


@pytest.fixture
def tune(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")

    def call(executor):
        name = executor.partition(":")[0]
        arguments = ["--data", "data.zarr", "--model", "linear", "--trials", "2", "--set", "tune.epochs=2"]
        code = main(["tune", "hubbard", "--preset", "test", *arguments, "--study", name, "--executor", executor])
        assert code == 0
        found = study.open_study(name, study.beside(connect()))
        assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 2
        rows = [row for row in runs.find(connect(), "hubbard") if row.tags.get("study") == found.study_name]
        assert {row.outcome for row in rows} == {"complete"}
        assert len(rows) == 3
        return found

    return call


def test_dask(tune):
    distributed = pytest.importorskip("distributed", reason="needs the package distributed (stm-lab[cluster])")
    where = {"dashboard_address": None, "host": "127.0.0.1"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **where) as cluster:
        found = tune(f"dask:{cluster.scheduler_address}")
        (worker,) = cluster.workers.values()
        assert {int(trial.user_attrs["worker"].split("/")[1]) for trial in found.trials} == {worker.process.pid}


@pytest.mark.usefixtures("slurm")
def test_slurm(tune, folder):
    pytest.importorskip("submitit", reason="needs the package submitit (stm-lab[cluster])")
    tune("slurm:partition=cpu,time=5,memory=400MB")
    assert not list(folder.glob(".tune-*"))
