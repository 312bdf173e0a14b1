"""Jobs of a SLURM cluster, through submitit."""

from __future__ import annotations

import contextlib
import functools
import getpass
import io
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pydantic import Field

from pipelines.executors.base import SimulationExecutor, WorkerLost
from pipelines.executors.threads import VARIABLES
from stm_models.config import Config, validate
from stm_models.errors import InputError

__all__ = ["SlurmExecutor", "SlurmOptions", "parse"]

POLL = 2.0  # seconds between two questions to the controller
GRACE = 10.0  # seconds that a shared file system may take to show the answer of a job that has left the queue
NAME = "stm-simulate"


class SlurmOptions(Config):
    """The options of ``--executor slurm:KEY=VALUE,...``."""

    partition: str | None = Field(None, pattern=r"^[\w.-]+$")
    account: str | None = Field(None, pattern=r"^[\w.-]+$")
    qos: str | None = Field(None, pattern=r"^[\w.-]+$")
    time: int = Field(240, ge=1, le=60 * 24 * 30, description="minutes per job")
    memory: str = Field("2GB", pattern=r"^\d+(MB|GB|TB)$", description="per job, e.g. 1500MB or 2GB")
    jobs: int = Field(64, ge=1, le=1000, description="at most so many jobs; chains are shared out among them")
    parallel: int = Field(256, ge=1, le=10_000, description="at most so many jobs at a time")


def parse(text: str) -> SlurmOptions:
    """Read ``partition=cpu,time=120``.

    Raises
    ------
    InputError
        For an unknown option, listing the choices, or an impossible value.
    """
    values = {}
    for pair in filter(None, text.split(",")):
        key, sign, value = pair.partition("=")
        if not sign:
            choices = ", ".join(SlurmOptions.model_fields)
            raise InputError(f"slurm option {pair!r} has no value: give KEY=VALUE with a key of {choices}")
        values[key.strip()] = value.strip()
    return validate(SlurmOptions, values, "--executor slurm")


class SlurmExecutor(SimulationExecutor):
    """Each call is a job; calls submitted together are one job array.

    The queue tells when a job is over, so that no accounting data base is needed. A job that ends
    without an answer (killed, out of time or memory, preempted) raises `WorkerLost`.

    Parameters
    ----------
    options : SlurmOptions
        What to ask of the cluster.
    folder : path
        Where submitit keeps calls, answers and logs, on a file system that the cluster shares; it is
        removed at the end unless a job failed. What an earlier call left there is cancelled.

    Raises
    ------
    InputError
        When this machine has no SLURM.
    """

    def __init__(self, options: SlurmOptions, folder: Path) -> None:
        for program in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(program) is None:
                raise InputError(
                    f"--executor slurm needs SLURM's {program}, which is not on this machine: run on a login node "
                    "of the cluster, or give --executor local"
                )
        try:
            import submitit
        except ModuleNotFoundError:
            raise InputError("--executor slurm needs the package 'submitit': install stm-lab[cluster]") from None
        self.pieces = options.jobs
        self._folder = folder
        if folder.exists():
            _cancel(sorted({path.name.partition("_")[0] for path in folder.glob("[0-9]*_submitted.pkl")}))
            shutil.rmtree(folder, ignore_errors=True)
        self._executor = submitit.SlurmExecutor(folder=folder)
        asked = {"partition": options.partition, "account": options.account, "qos": options.qos}
        self._executor.update_parameters(
            job_name=NAME,
            time=options.time,
            mem=options.memory,
            cpus_per_task=1,
            array_parallelism=options.parallel,
            setup=[f"export {name}=1" for name in VARIABLES],
            stderr_to_stdout=True,
            **{name: value for name, value in asked.items() if value is not None},
        )
        self._running: dict[str, tuple[Any, Future[Any]]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failed = False
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one job."""
        return self.submit_all(functools.partial(fn, **kwargs), [args])[0]

    def submit_all(self, fn: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Future[Any]]:
        """Queue one job array."""
        import submitit

        try:
            # What sbatch says is said once, by us.
            with contextlib.redirect_stderr(io.StringIO()), self._executor.batch():
                jobs = [self._executor.submit(_outcome, fn, arguments) for arguments in calls]
            identities = [job.job_id for job in jobs]
        except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
            reason = " ".join(str(getattr(error, "stderr", "") or error).split())[-300:]
            raise InputError(f"SLURM refuses the job: {reason}; mend the options of --executor slurm:...") from error
        futures: list[Future[Any]] = [Future() for _ in jobs]
        with self._lock:
            self._running.update(zip(identities, zip(jobs, futures, strict=True), strict=True))
        return futures

    def abandon(self) -> None:
        """Cancel every job; the logs are kept when a job failed."""
        with self._lock:
            running = list(self._running)
            self._running.clear()
        self._closed.set()
        self._watcher.join()
        _cancel(sorted({name.partition("_")[0] for name in running}))
        if not self._failed:
            shutil.rmtree(self._folder, ignore_errors=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor.shutdown`."""
        while wait and self._running and not self._closed.is_set():
            time.sleep(0.1)
        self._closed.set()
        self._watcher.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        missing: dict[str, float] = {}
        while not self._closed.wait(POLL):
            with self._lock:
                running = dict(self._running)
            queued = _queued() if running else None
            for name, (job, future) in running.items():
                if job.paths.result_pickle.exists():
                    self._settle(name, job, future)
                elif queued is not None and name not in queued:
                    if time.monotonic() - missing.setdefault(name, time.monotonic()) > GRACE:
                        self._settle(name, job, future)
                else:
                    missing.pop(name, None)

    def _settle(self, name: str, job: Any, future: Future[Any]) -> None:
        with self._lock:
            if self._running.pop(name, None) is None:
                return
        if not job.paths.result_pickle.exists():
            self._failed = True
            future.set_exception(WorkerLost(f"SLURM job {name} ended without an answer, see {job.paths.stdout}"))
            return
        try:
            value, error = job.result()
        except Exception as trouble:
            value, error = None, RuntimeError(f"SLURM job {name} could not run: {str(trouble).strip()[-500:]}")
        if error is None:
            future.set_result(value)
        else:
            self._failed = True
            future.set_exception(error)


def _outcome(fn: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    """Run in the job: submitit would turn an exception into text."""
    # submitit's handlers end a call near its time limit as a failure and hold off preemption; for us both are
    # workers that are lost, and every group that was finished before is kept.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        return fn(*arguments), None
    except Exception as error:
        return None, error


def _queued() -> set[str] | None:
    """Return the identities of this user's jobs that wait or run, None when the controller does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}", f"--name={NAME}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return set(re.findall(r"\S+", done.stdout))


def _cancel(identities: Sequence[str]) -> None:
    if identities:
        subprocess.run(["scancel", f"--name={NAME}", *identities], capture_output=True, timeout=60, check=False)
