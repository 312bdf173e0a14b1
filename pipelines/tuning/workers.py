"""The workers of a search: processes that make the same call, here or on a cluster, until there are enough trials."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import Any

from pipelines import executors
from pipelines.executors import WorkerLost
from stm_models.errors import InputError
from stm_models.progress import Progress
from tracking import study, trials

__all__ = ["Call", "describe", "run_workers"]

Call = tuple[Callable[..., None], tuple[Any, ...]]

_POLL = 0.5  # seconds
_SHARE = "start the command in a folder on"
_STATES = ("complete", "pruned", "fail")


def run_workers(
    found: Any, calls: Sequence[Call], *, executor: str, store_uri: str, parent: str, n_trials: int, label: str
) -> None:
    """Start one worker per call and watch them until the study has its trials.

    A worker that dies is noted and replaced; its trial is run again.

    Parameters
    ----------
    found : optuna.Study
    calls : sequence of (callable, arguments)
        What workers do, to be pickled.
    executor : str
        One of `pipelines.executors.CHOICES`.
    store_uri : str
        The tracking store that the workers use.
    parent : str
        Id of the run that they work for.
    n_trials : int
        When they will end.
    label : str
        Name of the first value.

    Raises
    ------
    InputError
        When the executor cannot be used, or workers keep dying before anything new is reported; from a worker.
    Exception
        What ended a worker.
    """
    pool = executors.create(executor, len(calls), Path.cwd() / f"tune-{parent}", _SHARE)
    shown = {row.number for row in study.rows(found) if row.state in _STATES}
    try:
        with Progress(n_trials, "tune", "trial", done=trials.count(found)) as bar:
            placed = [(*call, str(Path.cwd()), store_uri) for call in calls]
            running = dict(zip(pool.submit_all(_work, placed), placed, strict=True))
            deaths, last = 0, _reported(found)
            while running:
                ended = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED).done
                for row in study.rows(found):
                    if row.state in _STATES and row.number not in shown:
                        shown.add(row.number)
                        print(describe(row))
                bar.update(trials.count(found) - bar.done, _best(found, label))
                for future in ended:
                    call = running.pop(future)
                    try:
                        future.result()
                    except WorkerLost as lost:
                        now = _reported(found)
                        deaths, last = (deaths + 1 if now == last else 1), now
                        if deaths > trials.MOST_DEATHS * len(calls):
                            raise InputError(
                                f"{lost}, {deaths} times in a row before any trial reported anything: run the same "
                                "command again with fewer workers, or with more memory for each"
                            ) from lost
                        print(f"{lost}: its trial is run again", file=sys.stderr)
                        running[pool.submit(_work, *call)] = call
        pool.shutdown()
    except BaseException:
        pool.abandon()
        raise


def describe(row: study.TrialRow) -> str:
    """Say in one line how a trial ended."""
    values = "".join(f", {value:.4g}" for value in row.values)
    return f"trial {row.number}: {row.state}{values}"


def _reported(found: Any) -> int:
    """Count what trials have reported in all."""
    return sum(trials.reported(trial) for trial in found.get_trials(deepcopy=False)) + trials.count(found)


def _best(found: Any, label: str) -> str:
    values = [row.values[0] for row in study.rows(found) if row.state == "complete"]
    if not values:
        return ""
    choose: Callable[[list[float]], float] = max if found.directions[0].name == "MAXIMIZE" else min
    return f"best {label} {choose(values):.4g}"


def _work(call: Callable[..., None], given: tuple[Any, ...], folder: str, store_uri: str) -> None:
    """Do it in a worker; errors are told by the process that started it."""
    with contextlib.ExitStack() as inside:
        inside.enter_context(_inside(folder, store_uri))
        nowhere = inside.enter_context(Path(os.devnull).open("w"))
        inside.enter_context(contextlib.redirect_stdout(nowhere))
        inside.enter_context(contextlib.redirect_stderr(nowhere))
        call(*given)


@contextlib.contextmanager
def _inside(folder: str, store_uri: str) -> Iterator[None]:
    before, known = Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI")
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = store_uri
    try:
        yield
    finally:
        os.chdir(before)
        if known is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = known
