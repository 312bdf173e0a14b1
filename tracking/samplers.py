"""What proposes parameters, and what ends poor trials early, by name."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import optuna

from stm_models.errors import InputError, unknown

__all__ = ["create_pruner", "create_sampler"]

_PACKAGES = {"cmaes": "cmaes", "gp": "torch"}
_ONE_OBJECTIVE = ("cmaes",)
_SAMPLERS: dict[str, Callable[[int], Any]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True),
    # Parameters that only some trials have, and choices, are drawn at random beside it.
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
_PRUNERS: dict[str, Callable[[], Any]] = {
    "none": optuna.pruners.NopPruner,
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto"),
    "wilcoxon": lambda: optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=5),
}


def create_sampler(name: str, seed: int, *, objectives: int = 1) -> Any:
    """Return a sampler of Optuna.

    Parameters
    ----------
    name : {"tpe", "gp", "cmaes", "random"}
        Tree-structured Parzen estimators, Gaussian process, CMA-ES, or none of them.
    seed : int
    objectives : int
        Number of values of a trial.

    Raises
    ------
    InputError
        For an unknown name, a package that is missing, or several objectives where it takes one.
    """
    if name not in _SAMPLERS:
        raise unknown("sampler", name, _SAMPLERS)
    package = _PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise InputError(
            f"the sampler {name!r} needs the package {package!r}, which is not installed: "
            "install stm-lab[train], or give tune.sampler=tpe"
        )
    if objectives > 1 and name in _ONE_OBJECTIVE:
        raise InputError(f"the sampler {name!r} takes one objective, got {objectives}: give tune.sampler=tpe or gp")
    return _quietly(lambda: _SAMPLERS[name](seed))


def create_pruner(name: str) -> Any:
    """Return a pruner of Optuna: ``none``, ``median``, ``hyperband`` or ``wilcoxon``; InputError for another name."""
    if name not in _PRUNERS:
        raise unknown("pruner", name, _PRUNERS)
    return _quietly(_PRUNERS[name])


def _quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return make()
