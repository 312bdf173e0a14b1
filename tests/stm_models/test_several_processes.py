"""Processes that torchrun starts: the curve of one process, one that writes, and an end for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from stm_models.errors import InputError
from stm_models.training.distributed import World, joined
from support import several_processes as script

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch has no gloo here"
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    # No name is looked up, no other network interface taken than the machine's own.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, script.__file__, str(folder)], text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        timeout=600, check=False,
    )  # fmt: skip
    return run, folder


@pytest.mark.parametrize("case", [script.numbers, script.maps], ids=lambda case: case.__name__)
def test_the_curve_is_that_of_one_process(done, case):
    run, folder = done
    assert (folder / "curves-0.json").is_file(), run.stderr
    together = json.loads((folder / "curves-0.json").read_text())[case.__name__]
    alone = script.curve(*case())
    assert len(alone) == len(together) == script.EPOCHS
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    assert json.loads((folder / "curves-1.json").read_text())[case.__name__] == together
    assert alone[0]["train_loss"] > alone[-1]["train_loss"]


def test_one_process_alone_tells_and_writes(done):
    _, folder = done
    assert [json.loads((folder / f"curves-{rank}.json").read_text())["told"] for rank in (0, 1)] == [8, 0]
    assert (folder / "numbers.pt").is_file()


def test_an_error_in_one_process_ends_all(done):
    run, folder = done
    assert run.returncode != 0
    assert "training images hold NaN" in (folder / "error-1.txt").read_text()
    said = folder / "error-0.txt"
    # The other is told by the broken connection, if torchrun does not end it first.
    assert not said.exists() or "another process of this training ended" in said.read_text()


def test_a_batch_smaller_than_the_processes_is_refused():
    with pytest.raises(InputError, match=r"a batch has 2 samples, fewer than the 3 processes: raise train.batch_size"):
        World(0, 3).part(torch.zeros(2, 1))
    assert [len(World(rank, 3).part(torch.zeros(5, 1))) for rank in range(3)] == [2, 2, 1]


def test_the_others_wait_for_hours_while_the_first_simulates(monkeypatch):
    begun = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda kind, timeout: begun.append((kind, timeout)))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with joined("cpu"):
        assert begun == [("gloo", timedelta(days=1))]


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="more processes than the 1 GPUs"), joined("auto"):
        pass
