"""Studies: a search for good parameters that survives its workers."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from stm_models.errors import InputError, unknown
from stm_models.search import Range, Space
from tracking import probe, runs
from tracking.backend import MlflowException
from tracking.lock import exclusive
from tracking.runs import Run
from tracking.store import Store, first_line, redact

__all__ = ["TrialRow", "beside", "create_study", "importances", "run_trials", "suggest"]

logging.getLogger("optuna").setLevel(logging.ERROR)

DEFAULT = "sqlite:///optuna.db"
_RETRIES = 3
_PATIENCE = 3  # trials that fail in a row before the search gives up
_ENOUGH = 4  # complete trials before importances are told
_POLL = 0.5  # seconds
_MARK = "claimed"
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
_PRUNERS: dict[str, Callable[[], Any]] = {
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto"),
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    "none": optuna.pruners.NopPruner,
}


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study; ``state`` is complete, pruned, fail, running or waiting."""

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    seconds: float | None
    run_id: str | None


def beside(store: Store) -> str:
    """Return the address of the study database in the folder of ``store``; of the working directory's for a server."""
    folder = store.folder
    return DEFAULT if folder is None else f"sqlite:///{folder / 'optuna.db'}"


def create_study(
    name: str,
    storage: str | None = None,
    *,
    seed: int,
    worker: int = 0,
    direction: str = "minimize",
    pruner: str = "hyperband",
    heartbeat: int = 20,
) -> Any:
    """Open the study ``name``, made when it is new.

    Parameters
    ----------
    storage : str, optional
        Address of a database; else ``optuna.db`` in the working directory.
    seed, worker : int
        Of the sampler: each worker of a study gives its own number, and a study continued draws anew.
    heartbeat : int
        Seconds between the signs of life of a running trial; one silent for three of them is run again.

    Returns
    -------
    optuna.Study

    Raises
    ------
    InputError
        When the storage cannot be used, the pruner is unknown, or the study has another direction.
    """
    if pruner not in _PRUNERS:
        raise unknown("pruner", pruner, _PRUNERS)
    if direction not in ("minimize", "maximize"):
        raise unknown("direction", direction, ("minimize", "maximize"))
    storage = storage or DEFAULT
    lock_file = _lock_file(storage)
    with ExitStack() as stack:
        if lock_file is not None:
            stack.enter_context(exclusive(lock_file))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            backend = optuna.storages.RDBStorage(
                storage,
                heartbeat_interval=heartbeat,
                grace_period=3 * heartbeat,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(_RETRIES),
            )
            study = optuna.create_study(
                study_name=name,
                storage=backend,
                direction=direction,
                pruner=_PRUNERS[pruner](),
                load_if_exists=True,
            )
            numbers = np.random.SeedSequence([seed, worker, len(study.trials)]).generate_state(1)
            study.lock_file = lock_file
            study.sampler = optuna.samplers.TPESampler(seed=int(numbers[0]), constant_liar=True)
        except Exception as error:
            raise InputError(
                f"cannot use the study storage {redact(storage)}: {first_line(error)}; "
                "give sqlite:///FILE.db or the address of a database"
            ) from error
    if study.direction.name.lower() != direction:
        raise InputError(f"the study {name!r} exists and is to {study.direction.name.lower()}; give another name")
    return study


def suggest(trial: Any, space: Space, prefix: str = "") -> dict[str, Any]:
    """Draw a value for every entry of ``space``; the trial's parameters are named ``prefix.key``.

    Returns
    -------
    dict
        Keys as in ``space``.
    """
    values: dict[str, Any] = {}
    for key, entry in space.items():
        name = f"{prefix}.{key}" if prefix else key
        if not isinstance(entry, Range):
            values[key] = trial.suggest_categorical(name, list(entry.values))
        elif isinstance(entry.low, int) and isinstance(entry.high, int):
            values[key] = trial.suggest_int(name, entry.low, entry.high, log=entry.log)
        else:
            values[key] = trial.suggest_float(name, entry.low, entry.high, log=entry.log)
    return values


def run_trials(
    study: Any,
    objective: Callable[[Any, Run], float],
    n_trials: int,
    *,
    store: Store,
    experiment: str,
    parent: str,
    report: Callable[[TrialRow], None] | None = None,
) -> None:
    """Run trials until the study has ``n_trials`` complete or pruned ones, those of earlier calls included.

    Parameters
    ----------
    objective : callable (trial, run) -> float
        Works inside a run of its own; may call ``trial.report`` and raise ``optuna.TrialPruned``. A trial
        that fails or returns no finite number is recorded as failed, and another one is drawn.
    parent : str
        Id of the run that the trials' runs are nested in.
    report : callable, optional
        Called with each trial that ended here.

    Raises
    ------
    InputError
        From the objective.
    Exception
        What the objective raised, when several trials in a row failed.
    """
    failures = 0
    buried: set[int] = set()
    while True:
        with ExitStack() as claim:
            locked = _claim(study, claim)
            _fail_lost(study, locked)
            _bury(study, store, buried)
            # One snapshot: a trial that ends between two reads would be in neither of them.
            taken = _trials(study, *_COUNTED, TrialState.RUNNING)
            if sum(trial.state in _COUNTED for trial in taken) >= n_trials:
                return
            if len(taken) >= n_trials:
                claim.close()
                time.sleep(_POLL)
                continue
            number, error = _one(study, objective, store, experiment, parent, claim)
        if report is not None:
            report(_row(study.trials[number]))
        failures = failures + 1 if error is not None else 0
        if error is not None and (isinstance(error, InputError) or failures >= _PATIENCE):
            raise error


def importances(study: Any) -> dict[str, float] | None:
    """Return how much each parameter matters (they sum to 1), the most important first.

    ``None`` while the study has too few complete trials to say.
    """
    complete = _trials(study, TrialState.COMPLETE)
    if len(complete) < _ENOUGH or not any(trial.params for trial in complete):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):
            return None
    return {name: float(share) for name, share in sorted(found.items(), key=lambda item: -item[1])}


def _one(
    study: Any,
    objective: Callable[[Any, Run], float],
    store: Store,
    experiment: str,
    parent: str,
    claim: ExitStack,
) -> tuple[int, BaseException | None]:
    seen: dict[str, Any] = {"error": None}

    def work(trial: Any) -> float:
        seen["number"] = trial.number
        # From here on a kill is noticed by the silence; before, by the missing mark.
        study._storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(_MARK, trial.number)
        claim.close()
        tags = {"study": study.study_name, "trial": trial.number}
        try:
            with runs.start(store, experiment, f"trial-{trial.number:03d}", parent=parent, tags=tags) as run:
                trial.set_user_attr("run_id", run.id)
                try:
                    value = float(objective(trial, run))
                finally:
                    run.params(trial.params)
                if not math.isfinite(value):
                    raise ValueError(f"the objective of trial {trial.number} gave {value}")
            return value
        except optuna.TrialPruned:
            raise
        except Exception as error:
            seen["error"] = error
            raise

    study.optimize(work, n_trials=1, catch=(Exception,))
    return seen["number"], seen["error"]


def _claim(study: Any, claim: ExitStack) -> bool:
    """Let one worker at a time count and draw, where the study is a file that all of them see."""
    if study.lock_file is not None:
        claim.enter_context(exclusive(study.lock_file))
    return study.lock_file is not None


def _fail_lost(study: Any, locked: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    for trial in _trials(study, TrialState.RUNNING):
        age = datetime.now() - (trial.datetime_start or datetime.now())
        if trial.user_attrs.get(_MARK) != trial.number and (locked or age > timedelta(minutes=5)):
            study.tell(trial.number, state=TrialState.FAIL)


def _bury(study: Any, store: Store, buried: set[int]) -> None:
    """Close the runs that killed workers left open."""
    for trial in _trials(study, TrialState.FAIL):
        run_id = trial.user_attrs.get("run_id")
        if trial.number in buried or run_id is None or trial.user_attrs.get(_MARK) != trial.number:
            continue
        buried.add(trial.number)
        with suppress(MlflowException):
            if store.client.get_run(run_id).info.status == "RUNNING":
                store.client.set_tag(run_id, "outcome", "killed")
                store.client.set_terminated(run_id, status="KILLED")


def _trials(study: Any, *states: Any) -> list[Any]:
    found: list[Any] = study.get_trials(deepcopy=False, states=states)
    return found


def _row(trial: Any) -> TrialRow:
    return TrialRow(
        number=trial.number,
        state=trial.state.name.lower(),
        value=trial.value,
        params=dict(trial.params),
        seconds=trial.duration.total_seconds() if trial.duration else None,
        run_id=trial.user_attrs.get("run_id"),
    )


def _lock_file(storage: str) -> Path | None:
    name = storage.partition(":///")[2].partition("?")[0] if storage.startswith("sqlite") else ""
    if not name:
        return None
    path = Path(name).absolute()
    probe.sqlite(path, {"studies", "trials"}, "study storage", "give another file with --storage sqlite:///FILE.db")
    return path.with_name(f"{path.name}.lock")
