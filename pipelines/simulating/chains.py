"""The worker's half of a simulation: chains of groups, each group written as soon as it is there."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from pipelines.executors.threads import one_thread
from pipelines.lease import Lease
from stm_models.config import Config
from stm_models.data.store import Store
from stm_models.errors import InputError
from stm_models.tasks.base import Task
from stm_models.tasks.plan import Group, Simulator

__all__ = ["FULL", "Chain", "label", "simulate_chains"]

FULL = (errno.ENOSPC, errno.EDQUOT)

Chain = Sequence[tuple[int | None, Group]]
"""Groups to simulate in this order, each with the index of the group that it starts from."""


def simulate_chains(task: Task, config: Config, path: Path, chains: Sequence[Chain], device: str, lease: Lease) -> None:
    """Simulate and write what the store does not hold yet of some chains; stop when the lease has ended.

    A group may be simulated by two workers at a time (one of them presumed dead): both write the same,
    file by file, each file at once.

    Parameters
    ----------
    task : Task
    config : Config
        The task's simulation config.
    path : Path
        The store, which was created with the plan of ``config``.
    chains : sequence of Chain
        Done one after the other.
    device : str
        Where the linear algebra runs: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
    lease : Lease
        Looked at before each group.

    Raises
    ------
    InputError, MemoryError, OSError
        At once; of a group's OSErrors those of a full disk or quota alone.
    RuntimeError
        For any other failure of a group, with its parameters, when the other chains are done.
    """
    failures = []
    with one_thread():
        store = Store(path)
        simulator = _simulator(task, config, device)
        for chain in chains:
            try:
                _simulate(simulator, store, chain, lease)
            except _GroupFailed as error:
                failures.append(error)
    if failures:
        raise RuntimeError(*failures[0].args) from failures[0].__cause__


class _GroupFailed(Exception):
    pass


def _simulate(simulator: Simulator, store: Store, chain: Chain, lease: Lease) -> None:
    for before, group in chain:
        if not lease.holds():
            return
        if store.holds(group.index):
            continue
        # Read back even what this process just wrote: a continued run starts from the same bits.
        state = None if before is None else store.state(before)
        try:
            result = simulator(group, state)
            if not store.holds(group.index):
                store.write(group, result)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise _GroupFailed(f"{label(group)} failed: {type(error).__name__}: {error}") from error


def label(group: Group) -> str:
    """Return the group's number and parameters, for messages."""
    known = ", ".join(f"{name}={value:g}" for name, value in group.parameters.items())
    return f"group {group.index} ({known})"


_cache: dict[tuple[type[Task], str, str], Simulator] = {}


def _simulator(task: Task, config: Config, device: str) -> Simulator:
    """Return this process's simulator, built once for all of its chains."""
    key = (type(task), config.model_dump_json(), device)
    if key not in _cache:
        _cache.clear()
        _cache[key] = task.simulator(config, device=device)
    return _cache[key]
