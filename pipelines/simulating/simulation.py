"""Simulating a data set: chains of groups mapped over an executor, resumable at any point."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import executors
from pipelines.lease import only_writer
from pipelines.simulating.chains import FULL, Chain
from pipelines.simulating.mapping import map_chains
from stm_models.config import Config
from stm_models.data import digest
from stm_models.data.store import Store, create, open_root
from stm_models.errors import InputError
from stm_models.files import output_directory
from stm_models.progress import Progress
from stm_models.tasks.base import Task
from stm_models.tasks.plan import Plan

__all__ = ["SimulationSummary", "simulate"]


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
    device: str = "auto",
    progress: bool = True,
) -> SimulationSummary:
    """Fill the store ``out``, or finish it where an earlier call stopped; only read it if it is finished.

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
        Number of processes of the local executor.
    executor : str
        See `pipelines.executors.create`.
    device : str
        Where the linear algebra runs: ``cpu``, ``cuda``, or ``auto`` for a GPU where a worker has one.
    progress : bool
        Whether to report on stderr.

    Raises
    ------
    InputError
        When ``out`` holds something else or another recipe, another process is writing it, the disk is
        full, the executor cannot be used, or a group has cost several worker processes in a row.
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
    if not (_is_there(out) and _checked(out, attributes).attributes["complete"]):
        output_directory(out.parent)
        with only_writer(out) as lease, _one_line_errors(out):
            if not _is_there(out):
                create(out, plan, attributes)
            store = _checked(out, attributes)
            if not store.attributes["complete"]:  # nor has another process finished it meanwhile
                stream = None if progress else io.StringIO()
                _fill(store, plan, workers, executor, stream, task=task, config=config, device=device, lease=lease)
    return _summary(Store(out), start)


def _fill(store: Store, plan: Plan, workers: int, executor: str, stream: io.StringIO | None, **arguments: Any) -> None:
    """Simulate the groups that are missing, and finish the store."""
    finished = store.mend()
    chains = _unfinished(plan, finished)
    if chains:
        with Progress(len(finished), "simulate", "group", done=int(finished.sum()), stream=stream) as bar:
            pool = executors.create(executor, min(workers, len(chains)), Path(store.path))
            map_chains(pool, chains, store, arguments, bar)
    store.finish()


def _summary(store: Store, start: float) -> SimulationSummary:
    converged = store.scalar("converged")
    return SimulationSummary(
        data=str(store.path),
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


def _is_there(out: Path) -> bool:
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _checked(out: Path, attributes: Mapping[str, Any]) -> Store:
    """Open the store ``out``, which holds this recipe."""
    there = open_root(out).attrs.get("recipe")
    if there != attributes["recipe"]:
        raise InputError(
            f"{out} was simulated with recipe {str(there)[:12]}, this is recipe "
            f"{attributes['recipe'][:12]}: give another --out, or delete it"
        )
    return Store(out)


def _unfinished(plan: Plan, finished: np.ndarray) -> list[Chain]:
    """Return, longest first, each chain's unfinished groups with their predecessors' indices."""
    chains: list[Chain] = []
    for chain in plan.chains:
        pairs = zip([None, *(group.index for group in chain)], chain, strict=False)
        chains.append([(before, group) for before, group in pairs if not finished[group.index]])
    return sorted(filter(None, chains), key=len, reverse=True)


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
