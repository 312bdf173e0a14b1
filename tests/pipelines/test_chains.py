"""The worker's half: several workers at one group, and workers that outlive the call they work for."""

import multiprocessing

import pytest
import zarr

from pipelines.lease import Lease, only_writer
from pipelines.simulating import simulation
from pipelines.simulating.chains import simulate_chains
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.data.store import Store, create
from support import toy_task

TASK = toy_task.ToyTask()
CONFIG = toy_task.ToyConfig(chains=2, length=6, seconds=0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    return simulate(TASK, CONFIG, out, workers=1, progress=False)


@pytest.fixture
def begun(tmp_path):
    """A store without groups, its chains and a lease."""
    out, plan = tmp_path / "a.zarr", TASK.plan(CONFIG)
    create(out, plan, simulation._attributes(TASK, CONFIG, plan))
    store = Store(out)
    lease = Lease(tmp_path / "lock", "mine")
    lease.path.write_text("mine")
    return store, simulation._unfinished(plan, store.mend()), lease


def work(path, chains, lease):
    simulate_chains(TASK, CONFIG, path, chains, "cpu", lease)


def test_four_workers_at_the_same_groups_write_one_data_set(begun, undisturbed):
    store, chains, lease = begun
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(store.path, chains, lease)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert store.mend().all()
    assert store.finish() == undisturbed.digest
    assert load(store.path, verify=True).attributes["digest"] == undisturbed.digest
    bits = [zarr.open_group(path, mode="r")["state_n"][:].tobytes() for path in (store.path, undisturbed.data)]
    assert bits[0] == bits[1]


def test_what_is_there_is_not_simulated_again(begun):
    store, chains, lease = begun
    work(store.path, [chains[0][:4]], lease)
    assert store.count_finished() == 4
    assert [store.holds(index) for index in range(6)] == [True] * 4 + [False] * 2
    times = {path: path.stat().st_mtime_ns for path in store.path.rglob("c.[0-3].*")}
    assert times
    work(store.path, chains, lease)
    assert store.mend().all()
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_worker_stops_when_another_call_has_taken_over_or_the_call_has_ended(begun):
    store, chains, lease = begun
    lease.path.write_text("theirs")
    work(store.path, chains, lease)
    lease.path.unlink()
    work(store.path, chains, lease)
    assert store.count_finished() == 0


def test_the_lock_file_is_the_lease(tmp_path):
    with only_writer(tmp_path / "a.zarr") as lease:
        assert lease.holds()
        assert not Lease(lease.path, "older").holds()
    assert not lease.holds()


def test_the_device_is_the_simulators_and_no_part_of_the_recipe(begun, undisturbed, monkeypatch):
    store, chains, lease = begun
    seen = []
    plain = toy_task.ToyTask.simulator
    monkeypatch.setattr(
        toy_task.ToyTask, "simulator", lambda self, config, *, device: seen.append(device) or plain(self, config)
    )
    simulate_chains(TASK, CONFIG, Store(store.path).path, chains[:1], "auto", lease)
    simulate_chains(TASK, CONFIG, store.path, chains[1:], "cuda", lease)
    assert seen == ["auto", "cuda"]
    assert store.attributes["recipe"] == undisturbed.recipe
