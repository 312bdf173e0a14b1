"""Names of executors, and the processes of this machine."""

import os

import pytest

from pipelines import executors
from pipelines.executors.dask import check_address
from pipelines.executors.slurm import parse
from pipelines.simulating.mapping import shares
from stm_models.errors import InputError


@pytest.mark.parametrize(
    "address", ["tcp://[::1]:8786", "[fe80::1]:8786", "tls://[::ffff:192.0.2.1]:8786", "tcp://node-7:8786", "node:1"]
)
def test_addresses_of_dask_schedulers(address):
    check_address(address)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("moon", "unknown executor 'moon': choose from local, dask:ADDRESS, dask:FILE.json, slurm"),
        ("local:4", "'local' takes none"),
        ("dask", "names no scheduler: give dask:tcp://HOST:PORT"),
        ("dask:nowhere", "names no scheduler"),
        ("dask:tcp://::1:8786", "names no scheduler"),
        ("dask:tcp://[::1]", "names no scheduler"),
        ("dask:/nowhere/s.json", "no scheduler file at /nowhere/s.json"),
        ("slurm:partitoin=cpu", "unknown key 'partitoin' .* the keys are partition, account"),
        ("slurm:time", "slurm option 'time' has no value: give KEY=VALUE"),
        ("slurm:time=soon", "time: .* got 'soon'"),
        ("slurm:memory=lots", "memory: .* got 'lots'"),
        ("slurm:jobs=0", "jobs: .* got '0'"),
        ("slurm:partition=a b;c", "partition: .* got 'a b;c'"),
        ("slurm:account=$(id)", "account: .* got"),
        ("slurm:qos=high low", "qos: .* got 'high low'"),
    ],
)
def test_what_is_no_executor_is_refused_with_the_choices(spec, said):
    with pytest.raises(InputError, match=said):
        executors.check(spec)


def test_options_of_slurm_are_typed():
    options = parse("partition=cpu,time=90,memory=1500MB,jobs=12,parallel=4")
    assert (options.partition, options.time, options.memory) == ("cpu", 90, "1500MB")
    assert (options.jobs, options.parallel, options.account) == (12, 4, None)
    assert parse("") == parse("time=240")


def test_slurm_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs SLURM's sbatch, which is not on this machine"):
        executors.create("slurm", 1, tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())


def test_shares_hold_every_chain_once_and_are_even():
    chains = [[(None, (chain, n)) for n in range(20 - chain)] for chain in range(20)]
    shared = shares(chains, 6)
    assert sorted(pair for share in shared for chain in share for pair in chain) == sorted(
        pair for chain in chains for pair in chain
    )
    sizes = [sum(map(len, share)) for share in shared]
    assert max(sizes) - min(sizes) < 20
    assert len(shares(chains, 30)) == len(shares(chains, None)) == 20


def test_a_dead_worker_is_told_of_and_replaced(tmp_path):
    with executors.create("local", 1, tmp_path / "a.zarr") as pool:
        with pytest.raises(executors.WorkerLost):
            pool.submit(os._exit, 3).result(60)
        assert pool.submit(os.getpid).result(60) != os.getpid()
