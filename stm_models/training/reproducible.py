"""Device, threads and random numbers of a training run, without a trace in the process's global state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from stm_models.errors import InputError

__all__ = ["deterministic", "mixed", "seeded", "select_device", "threads"]

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def select_device(name: str) -> torch.device:
    """Return the device called ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    InputError
        When ``"cuda"`` was asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for but there is none: set train.device to 'auto' or 'cpu'")
    return torch.device("cuda", torch.cuda.current_device())


def mixed(*numbers: int) -> int:
    """Return one seed (below 2**63) for a tuple of numbers that are not negative."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def seeded(seed: int, epoch: int, device: torch.device) -> Iterator[torch.Generator]:
    """Yield a CPU generator for ``epoch`` and seed torch's own, for dropout; that is restored on leaving."""
    start = mixed(seed, epoch)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(start)
        yield torch.Generator().manual_seed(start)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use ``count`` CPU threads inside; ``None`` leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Allow only operations that give the same bits every time, where ``wanted``.

    Raises
    ------
    InputError
        When something inside has no such operation on its device.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault(_CUBLAS, ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        operation = str(error).split()[0]
        raise InputError(
            f"train.deterministic is true, but {operation} has no deterministic form on this device: "
            "choose another network or perturbation, or leave train.deterministic out"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
