import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

import campaign
from pipelines import executors
from pipelines.lease import only_writer
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.data.store import Store
from stm_models.errors import InputError
from support import toy_task

start, finished, wait_for = campaign.start, campaign.finished, campaign.wait_for
TASK, CONFIG = toy_task.ToyTask(), toy_task.ToyConfig()
SLOW = toy_task.ToyConfig(length=8, seconds=0.05)


def run(config, out, workers=1):
    return simulate(TASK, config, out, workers=workers, progress=False)


def state_bits(path):
    return zarr.open_group(path, mode="r")["state_n"][:].tobytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same recipe as `start(out, SLOW)`, with one worker and no interruption."""
    out = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    return out, run(SLOW, out)


def test_summary_and_single_thread_workers(undisturbed):
    out, summary = undisturbed
    assert (summary.groups, summary.samples, summary.flagged) == (24, 48, 0)
    assert summary.data == str(out)
    samples = load(out, verify=True)
    assert samples.attributes["digest"] == summary.digest
    assert samples.attributes["recipe"] == summary.recipe
    assert samples.attributes["config"]["seconds"] == 0.05
    assert samples.attributes["simulator_version"] == "1"
    assert set(samples.coordinates["residual"]) == {1.0}  # OMP_NUM_THREADS as the workers saw it


def test_kill_several_times_changes_nothing(tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    before = 0
    for more, workers in ((1, 2), (3, 1), (2, 1)):
        process = start(out, SLOW, workers)
        wait_for(lambda goal=before + more: finished(out) >= goal)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        before = finished(out)
        assert before < 24
    process = start(out, SLOW)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert f"continuing, {before} of 24 groups were there" in text
    assert load(out, verify=True).attributes["digest"] == undisturbed[1].digest
    assert state_bits(out) == state_bits(undisturbed[0])
    assert not list(out.rglob("*.partial"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    out = tmp_path / "a.zarr"
    process = start(out, toy_task.ToyConfig(seconds=60))
    wait_for(lambda: len(campaign.workers_of(process.pid)) == 2)
    workers = campaign.workers_of(process.pid)
    time.sleep(1.5)  # let them get into their minute-long groups
    process.kill()
    process.communicate()

    def gone(pid):
        stat = Path(f"/proc/{pid}/stat")
        try:
            return stat.read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    wait_for(lambda: all(map(gone, workers)), 40)


def test_interrupt_stops_quickly_and_says_how_to_continue(tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    process = start(out, SLOW)
    wait_for(lambda: finished(out) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "of 24 groups are kept" in text
    assert "run the same command again" in text
    assert run(SLOW, out).digest == undisturbed[1].digest


def test_a_finished_store_is_left_alone(undisturbed):
    out, first = undisturbed
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    again = run(SLOW, out, workers=2)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == times
    assert (again.digest, again.samples) == (first.digest, first.samples)
    assert again.seconds < first.seconds


def test_damaged_groups_of_an_unfinished_store_are_simulated_again(tmp_path, undisturbed):
    out = Path(shutil.copytree(undisturbed[0], tmp_path / "a.zarr"))
    zarr.open_group(out, mode="r+").attrs.update({"complete": False, "digest": ""})
    (out / "state_n" / "c.4.0").write_bytes(b"")
    (out / "image" / "c.1.0.0.0").unlink()
    (out / "group_result" / "c.7.0").unlink()
    assert run(SLOW, out).digest == undisturbed[1].digest
    assert state_bits(out) == state_bits(undisturbed[0])


def run_failing(out, failure, group=5):
    return run(toy_task.ToyConfig(fail=group, failure=failure), out)


def test_a_bug_names_the_group_and_keeps_the_rest(tmp_path):
    with pytest.raises(RuntimeError, match=r"group 5 \(U=1, r=1.25\) failed: ZeroDivisionError: toy bug"):
        run_failing(tmp_path / "a.zarr", "bug")
    done = Store(tmp_path / "a.zarr").mend()
    assert np.flatnonzero(~done).tolist() == [5, 6, 7]


def test_five_kills_change_nothing(tmp_path):
    counts = campaign.campaign(tmp_path, 5, config=toy_task.ToyConfig(chains=4, length=10, seconds=0.05))
    assert counts["worker"] + counts["group"] == 5
    assert min(counts["worker"], counts["group"]) > 0


def test_a_killed_worker_costs_its_group_and_nothing_else(tmp_path, undisturbed):
    process = start(tmp_path / "a.zarr", SLOW)
    wait_for(lambda: finished(tmp_path / "a.zarr") >= 4)
    victim, survivor = campaign.workers_of(process.pid)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(set(campaign.workers_of(process.pid)) - {victim}) == 2)
    assert survivor in campaign.workers_of(process.pid)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert load(tmp_path / "a.zarr", verify=True).attributes["digest"] == undisturbed[1].digest


def test_full_disk_and_a_group_that_kills_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"disk of .* is full; .* run the same command again"):
        run_failing(tmp_path / "a.zarr", "full")
    with pytest.raises(InputError, match=r"group 5 \(U=1, r=1.25\): a worker .*, 3 times in a row; 9 of 12 groups"):
        run_failing(tmp_path / "b.zarr", "killed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_flagged_groups_are_counted(tmp_path):
    summary = run(toy_task.ToyConfig(chains=1, flagged=(1, 2)), tmp_path / "a.zarr")
    assert (summary.groups, summary.flagged) == (4, 2)
    assert set(load(tmp_path / "a.zarr").coordinates["group"]) == {0, 3}


def test_another_recipe_is_refused(undisturbed):
    out, summary = undisturbed
    with pytest.raises(InputError, match="give another --out, or delete it") as error:
        run(toy_task.ToyConfig(seed=1), out)
    assert summary.recipe[:12] in str(error.value)
    assert load(out, verify=True).attributes["digest"] == summary.digest


def test_two_writers_at_once(tmp_path):
    out = tmp_path / "a.zarr"
    with only_writer(out), pytest.raises(InputError, match="another process is writing"):
        run(CONFIG, out)
    assert not list(tmp_path.iterdir())


def test_a_process_that_may_have_no_children_simulates_by_itself(tmp_path, undisturbed):
    out = tmp_path / "a.zarr"
    worker = multiprocessing.get_context("fork").Process(target=run, args=(SLOW, out, 2), daemon=True)
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert load(out, verify=True).attributes["digest"] == undisturbed[1].digest


def test_a_finished_store_is_read_beside_a_writer(undisturbed):
    out, summary = undisturbed
    with only_writer(out):
        assert run(SLOW, out).digest == summary.digest


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="workers is 0"):
        run(CONFIG, tmp_path / "a.zarr", workers=0)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no Zarr v3 store"):
        run(CONFIG, tmp_path)
    with pytest.raises(InputError, match="no Zarr v3 store"):
        run(CONFIG, tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_and_leftovers_of_a_killed_creation_do(tmp_path, capsys):
    out = tmp_path / "a.zarr"
    out.mkdir()
    (tmp_path / ".a.zarr.new").mkdir()
    (tmp_path / ".a.zarr.new" / "junk").write_text("x")
    simulate(TASK, toy_task.ToyConfig(chains=1, length=2), out, workers=1)
    assert len(load(out)) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    printed, progress = capsys.readouterr()
    assert printed == ""
    assert "simulate: 2/2 groups" in progress


def test_environment_is_restored(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with executors.create("local", 1, tmp_path / "a.zarr") as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
        assert pool.submit(os.getenv, "MKL_NUM_THREADS").result() == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
