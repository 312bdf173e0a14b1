"""Simulating a data set: chains of groups mapped over an executor, resumable at any point."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pipelines import executors
from stm_models.config import Config
from stm_models.data import digest
from stm_models.data.store import Store, create, open_root
from stm_models.errors import InputError
from stm_models.files import output_directory
from stm_models.progress import Progress
from stm_models.tasks.base import Group, Plan, Simulator, Task

__all__ = ["SimulationSummary", "simulate"]

POLL = 0.2  # seconds between two looks at the progress
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class SimulationSummary:
    """What `simulate` made.

    Attributes
    ----------
    data : str
        Absolute path of the store.
    recipe, digest : str
        The two identities, see `stm_models.data.digest`.
    groups, samples : int
        Sizes of the whole data set.
    flagged : int
        Groups that did not converge.
    seconds : float
        Wall time of this call.
    """

    data: str
    recipe: str
    digest: str
    groups: int
    samples: int
    flagged: int
    seconds: float


def simulate(
    task: Task | str,
    config: Config,
    out: str | Path,
    *,
    workers: int,
    executor: str = "local",
    progress: bool = True,
) -> SimulationSummary:
    """Fill the store ``out``, or finish it where an earlier call stopped; do nothing if it is finished.

    Neither the number of workers nor interruptions change the digest.

    Parameters
    ----------
    task : Task or str
        A task that can be pickled, or the name of a registered one.
    config : Config
        The task's simulation config.
    out : path
        The store.
    workers : int
        Number of processes.
    executor : str
        See `pipelines.executors.create`.
    progress : bool
        Whether to report on stderr.

    Raises
    ------
    InputError
        When ``out`` holds something else or another recipe, another process is writing it, the disk is
        full, or a worker process was killed.
    RuntimeError
        When simulating a group fails; the message has the group's parameters. The other chains are
        simulated to their end first.
    KeyboardInterrupt
        After saying how to continue; finished groups are kept.
    """
    start = time.monotonic()
    if workers < 1:
        raise InputError(f"workers is {workers}, expected at least 1: give --workers 1")
    executors.check(executor)
    if isinstance(task, str):
        from stm_models.tasks import registry

        task = registry.get(task)
    out = Path(out).absolute()
    plan = task.plan(config)
    attributes = _attributes(task, config, plan)
    output_directory(out.parent)
    with _only_writer(out), _one_line_errors(out):
        store = _open(out, plan, attributes)
        if not store.attributes["complete"]:
            finished = store.mend()
            chains = _unfinished(plan, finished)
            if chains:
                done = int(finished.sum())
                stream = None if progress else io.StringIO()
                with Progress(len(finished), "simulate", "group", done=done, stream=stream) as bar:
                    _run(task, config, store, chains, min(workers, len(chains)), executor, bar)
            store.finish()
        converged = store.scalar("converged")
        return SimulationSummary(
            data=str(out),
            recipe=store.attributes["recipe"],
            digest=store.attributes["digest"],
            groups=len(converged),
            samples=len(converged) * store.per_group,
            flagged=int(np.sum(converged != 1.0)),
            seconds=round(time.monotonic() - start, 3),
        )


def _attributes(task: Task, config: Config, plan: Plan) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    version = str(plan.attributes["simulator_version"])
    return {
        **plan.attributes,
        "task": task.name,
        "config": values,
        "simulator_version": version,
        "recipe": digest.recipe(task.name, values, version),
        "targets": [asdict(target) for target in task.targets],
    }


def _open(out: Path, plan: Plan, attributes: Mapping[str, Any]) -> Store:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        create(out, plan, attributes)
    there = open_root(out).attrs.get("recipe")
    if there != attributes["recipe"]:
        raise InputError(
            f"{out} was simulated with recipe {str(there)[:12]}, this is recipe "
            f"{attributes['recipe'][:12]}: give another --out, or delete it"
        )
    return Store(out)


def _unfinished(plan: Plan, finished: np.ndarray) -> list[list[tuple[int | None, Group]]]:
    """Return, longest first, each chain's unfinished groups with their predecessors' indices."""
    chains = []
    for chain in plan.chains:
        pairs = zip([None, *(group.index for group in chain)], chain, strict=False)
        chains.append([(before, group) for before, group in pairs if not finished[group.index]])
    return sorted(filter(None, chains), key=len, reverse=True)


def _run(
    task: Task,
    config: Config,
    store: Store,
    chains: list[list[tuple[int | None, Group]]],
    workers: int,
    executor: str,
    bar: Progress,
) -> None:
    pool = executors.create(executor, workers)
    try:
        futures = [pool.submit(_run_chain, task, config, store.path, chain) for chain in chains]
        waiting: set[Future[None]] = set(futures)
        while waiting:
            waiting = wait(waiting, timeout=POLL, return_when=FIRST_COMPLETED).not_done
            bar.update(store.count_finished() - bar.done)
        pool.shutdown()
        for future in futures:
            future.result()
    except BrokenExecutor as error:
        executors.stop(pool)
        raise InputError(
            f"a worker process was killed, out of memory perhaps; {_kept(store, bar)}: "
            "run the same command again, with fewer --workers"
        ) from error
    except KeyboardInterrupt:
        executors.stop(pool)
        print(f"\nstopped: {_kept(store, bar)}; run the same command again to continue", file=sys.stderr)
        raise
    except BaseException:
        executors.stop(pool)
        raise


def _kept(store: Store, bar: Progress) -> str:
    return f"{store.count_finished()} of {bar.total} groups are kept in {store.path}"


def _run_chain(task: Task, config: Config, path: Path, chain: list[tuple[int | None, Group]]) -> None:
    with threadpool_limits(1):
        store = Store(path)
        simulator = _simulator(task, config)
        for before, group in chain:
            # Read back even what this process just wrote: a continued run starts from the same bits.
            state = None if before is None else store.state(before)
            try:
                store.write(group, simulator(group, state))
            except (InputError, MemoryError):
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                known = ", ".join(f"{name}={value:g}" for name, value in group.parameters.items())
                raise RuntimeError(f"group {group.index} ({known}) failed: {type(error).__name__}: {error}") from error


_cache: dict[tuple[type[Task], str], Simulator] = {}


def _simulator(task: Task, config: Config) -> Simulator:
    """Return this process's simulator, built once for all of its chains."""
    key = (type(task), config.model_dump_json())
    if key not in _cache:
        _cache.clear()
        _cache[key] = task.simulator(config)
    return _cache[key]


@contextmanager
def _one_line_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise InputError(
                f"the disk of {out} is full; finished groups are kept: make room and run the same command again"
            ) from error
        raise


@contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    """Hold the lock file beside ``out``; it goes away with its holder's work."""
    path = out.parent / f".{out.name}.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have removed the file between our two calls.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"another process is writing {out}: wait until it is done, or give another --out"
            ) from None
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
