"""Trials: worked by any number of processes, none lost or counted twice, however many of these are killed.

A trial whose worker was killed becomes FAIL, and a new one with its parameters and what it reported waits in its place.
Who does that may be killed, too: whether a failed trial still needs a successor is read off the study every time.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import TrialState

from stm_models.errors import InputError, TrainingFailed
from tracking import liveness, runs
from tracking.backend import MlflowException
from tracking.rows import RUN_TAG, RunRow
from tracking.runs import Run
from tracking.spool import PREFIX
from tracking.store import Store, first_line
from tracking.study import TrialRow

__all__ = [
    "MOST_DEATHS", "count", "note_epoch", "number_of", "origin", "own", "owned", "reported", "run_trials", "settle",
    "unfinished",
]  # fmt: skip

MOST_DEATHS = 3
"""So many workers in a row may die in a trial before it reports anything new; then it is given up."""

_PATIENCE = 3  # trials that fail in a row before the search gives up
_POLL = 0.5  # seconds
_MARK, _WORKER, _ERROR, _RUN = "claimed", "worker", "error", "run_id"
_DEATHS, _REPORTED, _EPOCH, _PARENT = "deaths", "reported", "epoch", "parent:"
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
_TAKEN = (*_COUNTED, TrialState.RUNNING)

Objective = Callable[[Any, Run], float | Sequence[float]]


def count(study: Any) -> int:
    """Return the number of trials that are complete or pruned."""
    return len(_trials(study, *_COUNTED))


def origin(trial: Any) -> int:
    """Return the number of the trial that ``trial`` runs again, the first one of them; its own for a new one."""
    return (*_history(trial), trial.number)[0]


def unfinished(study: Any) -> set[int]:
    """Return the `origin` of every trial that runs or waits to."""
    return {origin(trial) for trial in _trials(study, TrialState.RUNNING, TrialState.WAITING)}


def note_epoch(trial: Any, epoch: int) -> None:
    """Note how far a trial came that cannot report values: one with several objectives.

    It may go on from an earlier epoch than the one it was lost in; that is nothing new.
    """
    trial.set_user_attr(_EPOCH, max(epoch, trial.user_attrs.get(_EPOCH, 0)))


def reported(trial: Any) -> int:
    """Return how many epochs a trial has told of, those of the trials that it runs again included."""
    return max(len(trial.intermediate_values), trial.user_attrs.get(_EPOCH, 0))


def run_trials(
    study: Any,
    objective: Objective,
    n_trials: int,
    *,
    store: Store,
    experiment: str,
    parent: str,
    report: Callable[[TrialRow], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Run trials until the study has ``n_trials`` complete or pruned ones, those of earlier calls included.

    Parameters
    ----------
    objective : callable (trial, run) -> float, or one for each objective
        Works inside a run of its own; may call ``trial.report`` and raise ``optuna.TrialPruned``. A trial
        that fails or returns no finite number is recorded as failed, and another one is drawn.
    parent : str
        Id of the run that the trials' runs are nested in.
    report : callable, optional
        Called with each trial that ended here.
    stop : callable, optional
        Asked before each trial whether to begin no more.

    Raises
    ------
    InputError
        From the objective, at once: the next trial would meet the same mistake. `TrainingFailed` is the trial's own.
    Exception
        What the objective raised, when several trials in a row failed.
    """
    failures = 0
    buried: set[int] = set()
    while stop is None or not stop():
        with ExitStack() as claim:
            _recover(study, claim)
            _bury(study, store, buried)
            # One snapshot: a trial that ends between two reads would be in neither of them.
            taken = _trials(study, *_TAKEN)
            if sum(trial.state in _COUNTED for trial in taken) >= n_trials:
                return
            if len(taken) >= n_trials:
                claim.close()
                time.sleep(_POLL)
                continue
            number, error = _one(study, objective, n_trials, store, experiment, parent, claim)
        if number is None:
            continue
        if report is not None:
            report(TrialRow.of(study.trials[number]))
        failures = failures + 1 if error is not None else 0
        if isinstance(error, TrainingFailed) and failures >= _PATIENCE:
            raise InputError(f"{failures} trials failed in a row, the last one so: {error}") from error
        mistake = isinstance(error, InputError) and not isinstance(error, TrainingFailed)
        if error is not None and (mistake or failures >= _PATIENCE):
            raise error


def number_of(tags: Mapping[str, str]) -> int | None:
    """Return the number of the trial that a run says it is; ``None`` for one that is no trial."""
    try:
        return int(tags["trial"])
    except (KeyError, ValueError):
        return None


def owned(study: Any, run: RunRow) -> bool:
    """Tell whether trials of ``study`` are nested in a run, by the id that it had when it began or has now."""
    ids = (run.id, f"{PREFIX}{run.tags.get(RUN_TAG)}")
    return any(f"{_PARENT}{one}" in study.user_attrs for one in ids)


def own(study: Any, parent: str) -> None:
    """Note that trials of ``study`` are nested in the run ``parent``."""
    study.set_user_attr(f"{_PARENT}{parent}", True)


def settle(study: Any, store: Store, experiment: str) -> None:
    """Close every run that nobody works on any more, and let the trials that were lost wait to be run again."""
    with ExitStack() as claim:
        _recover(study, claim)
    if not runs.bury(store, experiment):
        return
    states: dict[int | None, TrialState] = {trial.number: trial.state for trial in _trials(study)}
    for parent in [key.removeprefix(_PARENT) for key in study.user_attrs if key.startswith(_PARENT)]:
        with suppress(MlflowException, InputError):
            for row in runs.find(store, parent=parent):
                state = states.get(number_of(row.tags))
                # Its worker closed the run before it told the study, and was killed in between; or is gone at all.
                untold = state == TrialState.FAIL and row.outcome in ("complete", "pruned")
                if untold or (row.status == "RUNNING" and state is not None and state.is_finished()):
                    runs.kill(store, row.id)


def _one(
    study: Any,
    objective: Objective,
    n_trials: int,
    store: Store,
    experiment: str,
    parent: str,
    claim: ExitStack,
) -> tuple[int | None, BaseException | None]:
    seen: dict[str, Any] = {"error": None, "number": None}

    def work(trial: Any) -> Any:
        # From here on a kill is noticed by the silence or the missing process; before, by the missing mark.
        if hasattr(study._storage, "record_heartbeat"):
            study._storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(_WORKER, liveness.identity())
        trial.set_user_attr(_MARK, trial.number)
        if not _admitted(study, trial.number, n_trials):
            trial.set_user_attr(_ERROR, "one more than asked for")
            raise _Surplus
        claim.close()
        seen["number"] = trial.number
        tags = {"study": study.study_name, "trial": trial.number, "trial.origin": origin(_frozen(study, trial))}
        try:
            with runs.start(store, experiment, f"trial-{trial.number:03d}", parent=parent, tags=tags) as run:
                trial.set_user_attr(_RUN, run.id)
                try:
                    values = _finite(objective(trial, run), trial.number)
                except optuna.TrialPruned:
                    run.tags({"trial.state": "PRUNED"})
                    raise
                finally:
                    run.params(trial.params)
            return values
        except (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except Exception as error:
            seen["error"] = error
            trial.set_user_attr(_ERROR, f"{type(error).__name__}: {first_line(error)}")
            raise

    try:
        study.optimize(work, n_trials=1, catch=(Exception,))
    except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
        number = seen["number"]
        if number is None or _ERROR in study.trials[number].user_attrs:
            raise
        # Others took us for dead, so that the trial is theirs now.
        return None, None
    return seen["number"], seen["error"]


class _Surplus(Exception):
    """Others have begun enough trials in the meantime."""


def _admitted(study: Any, number: int, n_trials: int) -> bool:
    """Tell whether trial ``number``, which has just begun, is wanted; the answer needs no lock.

    Of the trials that count in the end, each saw those before it, begun or waiting: so there are at most ``n_trials``.
    """
    known = study.get_trials(deepcopy=False)
    before = known[:number]
    lost = _history(known[number])[-1:]
    if lost and any(_history(trial)[-1:] == lost for trial in before):
        return False
    return sum(trial.state in (*_TAKEN, TrialState.WAITING) for trial in before) < n_trials


def _recover(study: Any, claim: ExitStack) -> None:
    """Find the trials that lost their worker and let them wait, where needed with the study locked to ``claim``."""
    locked = study.lock is not None
    if locked:
        claim.enter_context(study.lock())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in _trials(study, TrialState.RUNNING):
        if trial.user_attrs.get(_MARK) == trial.number:
            lost = liveness.gone(trial.user_attrs.get(_WORKER, ""))
        else:
            age = datetime.now() - (trial.datetime_start or datetime.now())
            lost = locked or age > timedelta(minutes=5)
        if lost:
            with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    _run_again(study)


def _run_again(study: Any) -> None:
    """Give every lost trial that has none a successor with its parameters and what it reported."""
    known = _trials(study)
    followed = {number for trial in known for number in _history(trial)}
    for trial in known:
        if trial.state != TrialState.FAIL or trial.number in followed or _ERROR in trial.user_attrs:
            continue
        new = reported(trial) > trial.user_attrs.get(_REPORTED, 0)
        deaths = 1 if new else trial.user_attrs.get(_DEATHS, 0) + 1
        if deaths >= MOST_DEATHS:
            continue
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
                user_attrs={**trial.user_attrs, _DEATHS: deaths, _REPORTED: reported(trial)},
                system_attrs={**trial.system_attrs, "retry_history": [*_history(trial), trial.number]},
                intermediate_values=trial.intermediate_values,
            )
        )  # fmt: skip


def _bury(study: Any, store: Store, buried: set[int]) -> None:
    """Close the runs that killed workers left open."""
    for trial in _trials(study, TrialState.FAIL):
        run_id = trial.user_attrs.get(_RUN)
        if trial.number in buried or run_id is None or trial.user_attrs.get(_MARK) != trial.number:
            continue
        buried.add(trial.number)
        with suppress(MlflowException, InputError):
            runs.kill_left(store, run_id)


def _finite(value: float | Sequence[float], number: int) -> Any:
    values = [float(each) for each in (value if isinstance(value, Sequence) else [value])]
    if not all(math.isfinite(each) for each in values):
        raise ValueError(f"the objective of trial {number} gave {value}")
    return values if len(values) > 1 else values[0]


def _history(trial: Any) -> list[int]:
    """Return the numbers of the trials that this one runs again, the first one first."""
    return list(trial.system_attrs.get("retry_history", ()))


def _frozen(study: Any, trial: Any) -> Any:
    return study._storage.get_trial(trial._trial_id)


def _trials(study: Any, *states: Any) -> list[Any]:
    found: list[Any] = study.get_trials(deepcopy=False, states=states or None)
    return found
