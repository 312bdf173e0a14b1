"""Simple regressions that every network is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from stm_models.errors import InputError, unknown
from stm_models.regression.components import principal_components

__all__ = ["BASELINES", "Baseline", "fit_baselines"]

Array = NDArray[Any]
Baseline = Callable[[Array], NDArray[np.float64]]

BASELINES = ("mean", "ridge", "kernel_ridge")
_COMPONENTS = 20
_FOLDS = 5
_RIDGE = {"alpha": np.logspace(-6, 3, 10)}
# Coordinates share one scale: with each scaled to 1 the weak components, mostly noise, count too much (MAE
# .013 instead of .008 eV on unseen U). Two samples are 2 * components apart in mean square.
_KERNEL = {"alpha": np.logspace(-7, -1, 4), "gamma": np.array([0.03, 0.1, 0.3, 1, 3])}  # gamma over the components


def fit_baselines(
    names: Iterable[str], images: Array, targets: Array, groups: Array, seed: int, *, components: int = _COMPONENTS
) -> dict[str, Baseline]:
    """Fit baselines on the principal components of training images standardised per pixel.

    Parameters
    ----------
    names : iterable of str
        Of ``mean`` (of the training targets), ``ridge`` and ``kernel_ridge`` (on the components in
        units of their root mean square; RBF; parameters by cross-validation that never splits a group).
    images : (S, C, H, W) floating
    targets : (S, T) floating
    groups : (S,)
        Samples with the same value stay on one side of every fold.
    seed : int
        Of the decomposition and the folds.
    components : int
        How many there are, at most.

    Returns
    -------
    dict of str to callable
        Each maps images (S, C, H, W) to (S, T) float64 in the targets' units.

    Raises
    ------
    InputError
        For an unknown name, fewer than two groups, or data that do not fit together or hold NaN.
    """
    names = list(names)
    for name in names:
        if name not in BASELINES:
            raise unknown("baseline", name, BASELINES)
    if targets.ndim != 2 or not len(images) == len(targets) == len(groups) or len(images) == 0:
        raise InputError(
            f"images {images.shape}, targets {targets.shape} and groups {np.shape(groups)} do not fit "
            "together: expected (samples, channels, height, width), (samples, targets) and (samples,)"
        )
    if not np.isfinite(targets).all():
        raise InputError("the targets hold NaN or infinity: leave those samples out")
    centre = targets.mean(axis=0, dtype=np.float64)
    fitted: dict[str, Baseline] = {}
    if set(names) - {"mean"}:
        spread = targets.std(axis=0, dtype=np.float64)
        spread = np.where(spread > 0, spread, 1.0)
        found = principal_components(images, components, seed)
        scores, scaled = found.scores(images), (targets - centre) / spread
        kernel = {**_KERNEL, "gamma": np.asarray(_KERNEL["gamma"]) / len(found.variances)}
    for name in names:
        if name == "mean":
            fitted[name] = _constant(centre)
            continue
        estimator, grid = (Ridge(), _RIDGE) if name == "ridge" else (KernelRidge(kernel="rbf"), kernel)
        model = _search(estimator, grid, scores, scaled, groups, seed)
        fitted[name] = _regression(model, found.scores, centre, spread)
    return fitted


def _search(estimator: Any, grid: dict[str, Array], scores: Array, targets: Array, groups: Array, seed: int) -> Any:
    count = len(np.unique(groups))
    if count < 2:
        raise InputError(f"cross-validation needs at least 2 groups, got {count}: simulate more groups")
    folds = GroupKFold(min(_FOLDS, count), shuffle=True, random_state=seed)
    search = GridSearchCV(estimator, grid, cv=folds, scoring="neg_mean_absolute_error")
    return search.fit(scores, targets, groups=groups).best_estimator_


def _constant(value: Array) -> Baseline:
    return lambda images: np.repeat(value[None], len(images), axis=0)


def _regression(model: Any, scores: Callable[[Array], Array], centre: Array, spread: Array) -> Baseline:
    return lambda images: model.predict(scores(images)).reshape(len(images), -1) * spread + centre
