"""Where simulations and trials run: one `concurrent.futures.Executor` per kind of place."""

from __future__ import annotations

from pathlib import Path

from pipelines.executors import dask, slurm
from pipelines.executors.base import SimulationExecutor, WorkerLost
from pipelines.executors.local import LocalExecutor
from pipelines.executors.within import WithinExecutor, childless
from stm_models.errors import InputError, unknown

__all__ = ["CHOICES", "SimulationExecutor", "WorkerLost", "check", "create"]

CHOICES = ("local", "dask:ADDRESS", "dask:FILE.json", "slurm", "slurm:KEY=VALUE,...")


def check(spec: str) -> None:
    """Raise InputError, listing the choices, for a ``spec`` that `create` does not know."""
    kind, colon, rest = spec.partition(":")
    if kind == "dask":
        dask.check_address(rest)
    elif kind == "slurm":
        slurm.parse(rest)
    elif kind != "local":
        raise unknown("executor", spec, CHOICES)
    elif colon:
        raise InputError(f"executor {spec!r} has options, 'local' takes none: give local, and --workers N")


def create(spec: str, workers: int, beside: Path, share: str = "give --out on") -> SimulationExecutor:
    """Return the executor named by ``spec``.

    Parameters
    ----------
    spec : str
        One of `CHOICES`.
    workers : int
        Processes of the local executor; clusters have their own say.
    beside : path
        The store that is filled, or the study; notes of the executor's own lie hidden in its folder.
    share : str
        How the user puts that folder on a file system that the workers share: the beginning of a sentence.

    Raises
    ------
    InputError
        For an unknown name or option, listing the choices; when the cluster cannot be used, saying why.
    """
    check(spec)
    kind, _, rest = spec.partition(":")
    if kind == "dask":
        return dask.DaskExecutor(rest, beside.parent, share)
    if kind == "slurm":
        return slurm.SlurmExecutor(slurm.parse(rest), beside.parent / f".{beside.name}.slurm")
    return WithinExecutor() if childless() else LocalExecutor(workers)
