"""Studies: a search for good parameters, kept in a database that several workers share."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from stm_models.errors import InputError, unknown
from stm_models.files import sha256_of_json
from stm_models.search import Range, Space
from tracking import probe
from tracking.lock import advisory, exclusive
from tracking.passwords import redact
from tracking.samplers import create_pruner, create_sampler
from tracking.sqlite_address import address, path_of
from tracking.store import Store, first_line

__all__ = ["TrialRow", "beside", "create_study", "importances", "open_study", "rows", "suggest"]

logging.getLogger("optuna").setLevel(logging.ERROR)

DEFAULT = "sqlite:///optuna.db"
_ENOUGH = 4  # complete trials before importances are told
_PATIENCE = 5.0  # seconds for a gRPC proxy to answer
_FORMS = "sqlite:///FILE.db, postgresql://USER@HOST/NAME or grpc://HOST:PORT"
_OPENINGS = "openings:"  # of the study's attributes: worker and number of trials follow
_DIRECTIONS = ("minimize", "maximize")


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study; ``state`` is complete, pruned, fail, running or waiting."""

    number: int
    state: str
    values: tuple[float, ...]
    params: dict[str, Any]
    seconds: float | None
    run_id: str | None

    @property
    def value(self) -> float | None:
        """The first value, the last one reported of a pruned trial; ``None`` when there is none."""
        return self.values[0] if self.values else None

    @classmethod
    def of(cls, trial: Any) -> TrialRow:
        """Return the row of a trial of Optuna's."""
        return cls(
            number=trial.number,
            state=trial.state.name.lower(),
            values=tuple(trial.values or ()),
            params=dict(trial.params),
            seconds=trial.duration.total_seconds() if trial.duration else None,
            run_id=trial.user_attrs.get("run_id"),
        )


def beside(store: Store) -> str:
    """Return the address of the study database in the folder of ``store``; of the working directory's for a server."""
    folder = store.folder
    return DEFAULT if folder is None else address(folder / "optuna.db")


def create_study(
    name: str,
    storage: str | None = None,
    *,
    seed: int,
    worker: int = 0,
    direction: str | Sequence[str] = "minimize",
    sampler: str = "tpe",
    pruner: str = "median",
    heartbeat: int = 20,
    earlier: str | None = None,
) -> Any:
    """Open the study ``name``, made when it is new.

    Parameters
    ----------
    storage : str, optional
        Address of a database or, with ``grpc://HOST:PORT``, of Optuna's proxy before one; else ``optuna.db`` in the
        working directory.
    seed, worker : int
        Of the sampler: each worker of a study gives its own number, and a study continued draws anew. The first opening
        by a worker at a number of trials draws the same for the same seed, further ones, of another command, draw
        others; behind a proxy, which has no lock, two openings at once may draw the same.
    direction : str or sequence of str
        ``minimize`` or ``maximize``; one for each objective.
    sampler, pruner : str
        See `tracking.samplers`. Only a study of one objective prunes.
    heartbeat : int
        Seconds between the signs of life of a running trial; one silent for three of them is run again.
    earlier : str, optional
        Name of a study that this one begins from: what is drawn is not what that one drew with the same seed.

    Returns
    -------
    optuna.Study
        Its attribute ``lock`` makes a context in which no other worker counts and draws; ``None`` where the storage
        has no such thing (a proxy).

    Raises
    ------
    InputError
        When the storage cannot be used, sampler or pruner cannot be had, or the study has other directions.
    """
    directions = [direction] if isinstance(direction, str) else list(direction)
    for each in directions:
        if each not in _DIRECTIONS:
            raise unknown("direction", each, _DIRECTIONS)
    ends_early = create_pruner(pruner if len(directions) == 1 else "none")
    create_sampler(sampler, seed, objectives=len(directions))
    storage = storage or DEFAULT
    lock_file = _lock_file(storage)
    with ExitStack() as stack:
        if lock_file is not None:
            stack.enter_context(_alone(lock_file, storage))
        try:
            study = optuna.create_study(
                study_name=name, storage=_backend(storage, heartbeat), directions=directions, pruner=ends_early,
                load_if_exists=True,
            )  # fmt: skip
            study.lock = _lock(study, lock_file)
            if lock_file is None and study.lock is not None:
                stack.enter_context(study.lock())
            entropy = [seed, worker, *_opening(study, worker), *([int(sha256_of_json(earlier), 16)] if earlier else [])]
            numbers = np.random.SeedSequence(entropy).generate_state(1)
        except Exception as error:
            raise _unusable(storage, error) from error
    study.sampler = create_sampler(sampler, int(numbers[0]), objectives=len(directions))
    found = [each.name.lower() for each in study.directions]
    if found != directions:
        raise InputError(f"the study {name!r} exists and is to {' and '.join(found)}; give another name")
    return study


def open_study(name: str, storage: str | None = None) -> Any:
    """Return a study that exists, to read it.

    Raises
    ------
    InputError
        When it does not exist, or the storage cannot be used.
    """
    storage = storage or DEFAULT
    lock_file = _lock_file(storage)
    with ExitStack() as stack:
        if lock_file is not None:
            stack.enter_context(_alone(lock_file, storage))
        try:
            backend = _backend(storage, 20)
            names = [each.study_name for each in optuna.get_all_study_summaries(backend, include_best_trial=False)]
        except Exception as error:
            raise _unusable(storage, error) from error
    if name not in names:
        raise unknown(f"study in {redact(storage)}", name, names)
    return optuna.load_study(study_name=name, storage=backend)


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


def rows(study: Any) -> list[TrialRow]:
    """Return all trials, by number."""
    return [TrialRow.of(trial) for trial in study.get_trials(deepcopy=False)]


def importances(study: Any) -> dict[str, float] | None:
    """Return how much each parameter matters to the first objective (they sum to 1), the most important first.

    ``None`` while the study has too few complete trials to say.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _ENOUGH or not any(trial.params for trial in complete):
        return None
    # The evaluator looks at what leads to small numbers; with one objective it knows the direction.
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    target = (lambda trial: sign * trial.values[0]) if len(study.directions) > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
        except (ValueError, RuntimeError):
            return None
    return {name: float(share) for name, share in sorted(found.items(), key=lambda item: -item[1])}


def _backend(storage: str, heartbeat: int) -> Any:
    scheme, _, rest = storage.partition("://")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if scheme != "grpc":
            return optuna.storages.RDBStorage(storage, heartbeat_interval=heartbeat, grace_period=3 * heartbeat)
        host, _, port = rest.rstrip("/").rpartition(":")
        if not host or not port.isdigit():
            raise ValueError("expected grpc://HOST:PORT")
        proxy = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
        try:
            proxy.wait_server_ready(timeout=_PATIENCE)
        except Exception as error:
            if isinstance(error, ImportError):
                raise
            raise ValueError(f"no proxy answers in {_PATIENCE:g} s") from error
        return proxy


def _opening(study: Any, worker: int) -> list[int]:
    """Return the number of trials and, from 1, of a worker's further opening at so many; count it."""
    trials = len(study.trials)
    key = f"{_OPENINGS}{worker}:{trials}"
    before: int = study.user_attrs.get(key, 0)
    study.set_user_attr(key, before + 1)
    return [trials, before] if before else [trials]


def _unusable(storage: str, error: Exception) -> InputError:
    package = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if package:
        return InputError(
            f"the study storage {redact(storage)} needs the package {package!r}, which is not installed: "
            "install stm-lab[cluster]"
        )
    return InputError(f"cannot use the study storage {redact(storage)}: {first_line(error)}; give {_FORMS}")


def _lock(study: Any, lock_file: Path | None) -> Callable[[], AbstractContextManager[None]] | None:
    if lock_file is not None:
        return lambda: exclusive(lock_file)
    backend = getattr(study._storage, "_backend", study._storage)  # Optuna keeps a cache before a database
    engine = getattr(backend, "engine", None)
    if engine is not None and engine.dialect.name == "postgresql":
        return lambda: advisory(engine, f"optuna study {study.study_name}")
    return None


def _lock_file(storage: str) -> Path | None:
    if not storage.startswith("sqlite"):
        return None
    path = path_of(storage, "study storage")
    return path.with_name(f"{path.name}.lock")


@contextmanager
def _alone(lock_file: Path, storage: str) -> Iterator[None]:
    """Hold the lock of a file of studies that is whole: the tables of a new one are not looked at as they are made."""
    with exclusive(lock_file):
        path = path_of(storage, "study storage")
        probe.sqlite(path, {"studies", "trials"}, "study storage", "give another file with --storage sqlite:///FILE.db")
        yield
