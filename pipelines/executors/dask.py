"""An existing Dask cluster: the jobs of dask-jobqueue, Kubernetes, or `dask worker` by hand."""

from __future__ import annotations

import logging
import platform
import re
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipelines.executors.base import SimulationExecutor, WorkerLost
from pipelines.executors.threads import limit_environment
from stm_models import __version__
from stm_models.errors import InputError, one_line

__all__ = ["DaskExecutor", "check_address"]

CONNECT = 10  # seconds to wait for the scheduler
PATIENCE = 30.0  # seconds to wait for the first worker
_ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?([^/\s:]+|\[[0-9a-fA-F:.]+\]):\d+|.*\.json")
_one_at_a_time = threading.Lock()


def check_address(address: str) -> None:
    """Raise InputError for what is neither a scheduler's address nor a scheduler file that exists."""
    if not _ADDRESS.fullmatch(address):
        raise InputError(
            f"executor 'dask:{address}' names no scheduler: give dask:tcp://HOST:PORT as `dask scheduler` prints "
            "it, or dask:FILE.json as its --scheduler-file wrote it"
        )
    if address.endswith(".json") and not Path(address).is_file():
        raise InputError(f"no scheduler file at {address}: start `dask scheduler --scheduler-file {address}` first")


class DaskExecutor(SimulationExecutor):
    """Tasks of a Dask cluster whose workers see the folder of the store.

    A task whose worker dies is given to another worker by Dask itself; `WorkerLost` is raised when that
    happened more often than the scheduler's ``allowed-failures``.

    Parameters
    ----------
    address : str
        Scheduler address or scheduler file.
    folder : path
        A folder that the workers must share with us.
    share : str
        See `pipelines.executors.create`.

    Raises
    ------
    InputError
        When no scheduler or no worker answers, or a worker has other versions or another file system.
    """

    def __init__(self, address: str, folder: Path, share: str) -> None:
        self._address = address
        self._client = _connect(address)
        try:
            _check_workers(self._client, address, folder, share)
        except BaseException:
            self._client.close()
            raise
        self._executor = self._client.get_executor(pure=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call on the cluster."""
        ours: Future[Any] = Future()
        theirs = self._executor.submit(_alone, fn, args, kwargs)
        theirs.add_done_callback(lambda done: self._settle(ours, done))
        return ours

    def abandon(self) -> None:
        """Withdraw what is queued and leave; a group that runs is finished by its worker."""
        if self._client.status == "running":
            self._executor.shutdown(wait=False)
        self._client.close()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which goes on."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()

    def _settle(self, ours: Future[Any], theirs: Future[Any]) -> None:
        from distributed import KilledWorker

        if theirs.cancelled():
            ours.set_exception(InputError(f"the Dask scheduler {self._address} is gone"))
            return
        error = theirs.exception()
        if isinstance(error, KilledWorker):
            ours.set_exception(WorkerLost("Dask workers were killed, out of memory perhaps"))
        elif error is not None:
            ours.set_exception(error)
        else:
            ours.set_result(theirs.result())


def _alone(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run on a worker: one call at a time in a process, even where the cluster gave it many threads."""
    limit_environment()
    with _one_at_a_time:
        return fn(*args, **kwargs)


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError("--executor dask needs the package 'distributed': install stm-lab[cluster]") from None
    # What goes wrong is said once, by us.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    target = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        return Client(**target, timeout=CONNECT, set_as_default=False, name="stm-simulate")
    except Exception as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({one_line(error, 160)}): check the address, and that this "
            "machine may reach it"
        ) from error


def _check_workers(client: Any, address: str, folder: Path, share: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise InputError(
            f"the Dask scheduler {address} has no worker after {PATIENCE:g} s: start `dask worker {address}`"
        ) from None
    marker = folder / f".shared-{uuid.uuid4().hex}"
    marker.touch()
    try:
        answers = client.run(_probe, str(marker), on_error="return")
    finally:
        marker.unlink(missing_ok=True)
    ours = _probe(str(folder))
    for worker, answer in answers.items():
        if isinstance(answer, ModuleNotFoundError):
            raise InputError(
                f"the Dask worker {worker} has no module {answer.name!r}: install stm-lab {__version__} there"
            )
        if isinstance(answer, BaseException):
            raise InputError(f"the Dask worker {worker} cannot be used: {type(answer).__name__}: {answer}")
        if not answer.pop("shared"):
            raise InputError(
                f"the Dask worker {worker} does not see the files of {folder}: {share} a file system that "
                "this machine and all workers share under one path"
            )
        for name, version in answer.items():
            if version != ours[name]:
                raise InputError(
                    f"the Dask worker {worker} has {name} {version}, here is {ours[name]}: use one environment for both"
                )
    threads = Counter(info["nthreads"] for info in client.scheduler_info(n_workers=-1)["workers"].values())
    if max(threads, default=1) > 1:
        print(
            "note: Dask workers with several threads take one chain, or one worker of a search, at a time: "
            "`dask worker --nthreads 1 --nworkers N` uses N cores",
            file=sys.stderr,
        )


def _probe(marker: str) -> dict[str, Any]:
    """Run on every worker: what must be the same there as here."""
    import distributed
    import numpy

    python = ".".join(platform.python_version_tuple()[:2])
    versions = {"stm-lab": __version__, "Python": python, "numpy": numpy.__version__}
    return {"shared": Path(marker).exists(), **versions, "distributed": distributed.__version__}
