"""`stm simulate --executor slurm` on a real SLURM."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import campaign
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.errors import InputError
from support import toy_task

TESTS = Path(__file__).parents[1]
pytest.importorskip("submitit", reason="needs the package submitit (stm-lab[cluster])")
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("slurm", "importable")]

TASK = toy_task.ToyTask()
SLOW = toy_task.ToyConfig(chains=5, length=8, seconds=0.5)
SPEC = "slurm:partition=cpu,time=5,memory=100MB,jobs=2"


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", campaign.PYTHONPATH)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    return simulate(TASK, SLOW, out, workers=2, progress=False)


def queued():
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i %t"], capture_output=True, text=True, check=True
    )
    return dict(line.split() for line in done.stdout.splitlines())


def test_the_same_data_set_as_local_processes_and_no_litter(tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    summary = simulate(TASK, SLOW, out, workers=1, executor=SPEC, progress=False)
    assert summary.digest == undisturbed.digest
    assert load(out, verify=True).attributes["digest"] == summary.digest
    assert set(load(out).coordinates["residual"]) == {1.0}  # OMP_NUM_THREADS as the jobs saw it
    assert not campaign.litter(out)


@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_a_job_killed_or_preempted_mid_run_is_submitted_again(name, tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    process = campaign.start(out, SLOW, executor=SPEC)
    campaign.wait_for(lambda: campaign.finished(out) >= 3 and "R" in queued().values())
    victim = next(name for name, state in queued().items() if state == "R")
    ours = set(queued())
    subprocess.run(["scancel", "--signal=USR2", victim], check=True)  # the time limit is near: work on
    subprocess.run(["scancel", f"--signal={name}", victim], check=True)
    campaign.wait_for(lambda: set(queued()) - ours)
    assert campaign.finished(out) < 40
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert load(out, verify=True).attributes["digest"] == undisturbed.digest
    assert not campaign.litter(out)
    assert not queued()


def test_an_interrupt_cancels_the_jobs_and_what_follows_continues(tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    process = campaign.start(out, SLOW, executor=SPEC)
    campaign.wait_for(lambda: campaign.finished(out) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=30)
    assert re.search(r"stopped: \d+ of 40 groups are kept", text)
    campaign.wait_for(lambda: not queued())
    assert not campaign.litter(out) or campaign.litter(out)[0].endswith(".partial")
    assert simulate(TASK, SLOW, out, workers=2, progress=False).digest == undisturbed.digest
    assert not campaign.litter(out)


def test_what_a_killed_call_left_in_the_queue_is_cancelled_by_the_next(tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    process = campaign.start(out, SLOW, executor=SPEC)
    campaign.wait_for(lambda: campaign.finished(out) >= 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = set(queued())
    assert left
    summary = simulate(TASK, SLOW, out, workers=1, executor=SPEC, progress=False)
    assert summary.digest == undisturbed.digest
    assert not left & set(queued())
    assert not campaign.litter(out)


def test_a_group_that_kills_every_job_is_given_up_and_a_bug_is_named(tmp_path):
    out = tmp_path / "a.zarr"
    with pytest.raises(InputError, match=r"group 5 \(U=1, r=1.25\): SLURM job .* ended without an answer"):
        simulate(TASK, toy_task.ToyConfig(fail=5, failure="killed"), out, workers=1, executor=SPEC, progress=False)
    assert campaign.finished(out) == 9
    assert list(tmp_path.glob(".a.zarr.slurm/*.out")), "the logs of failed jobs are kept"
    out = tmp_path / "b.zarr"
    with pytest.raises(RuntimeError, match=r"group 5 \(U=1, r=1.25\) failed: ZeroDivisionError: toy bug"):
        simulate(TASK, toy_task.ToyConfig(fail=5), out, workers=1, executor=SPEC, progress=False)
    assert campaign.finished(out) == 9


def test_options_that_slurm_refuses_are_one_line(tmp_path):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"SLURM refuses the job: .*partition"):
        simulate(TASK, SLOW, tmp_path / "a.zarr", workers=1, executor="slurm:partition=moon", progress=False)
    assert time.monotonic() - start < 30
