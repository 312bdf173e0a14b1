"""Errors of predicted targets, in the targets' units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["interval_scores", "mae", "metrics", "r2", "rmse"]

Array = NDArray[Any]


def mae(prediction: Array, target: Array) -> NDArray[np.float64]:
    """Return the (T,) mean absolute errors of ``prediction`` (S, T) against ``target`` (S, T)."""
    prediction, target = _pair(prediction, target)
    return np.abs(prediction - target).mean(axis=0)


def rmse(prediction: Array, target: Array) -> NDArray[np.float64]:
    """Return the (T,) root mean square errors of ``prediction`` (S, T) against ``target`` (S, T)."""
    prediction, target = _pair(prediction, target)
    return np.sqrt(np.square(prediction - target).mean(axis=0))


def r2(prediction: Array, target: Array) -> NDArray[np.float64]:
    """Return the (T,) coefficients of determination; for a constant target 1 if it is met exactly, else 0."""
    prediction, target = _pair(prediction, target)
    residual = np.square(prediction - target).sum(axis=0)
    total = np.square(target - target.mean(axis=0)).sum(axis=0)
    varies = np.ptp(target, axis=0) > 0  # the mean of equal numbers is often another
    ratio = residual / np.where(varies, total, 1.0)
    return np.where(varies, 1.0 - ratio, np.where(residual == 0, 1.0, 0.0))


def metrics(prediction: Array, target: Array, names: Sequence[str] = ()) -> dict[str, float]:
    """Return ``mae``, ``rmse`` and ``r2``, each the mean over targets.

    With several target ``names``, also ``mae_NAME``, ``rmse_NAME`` and ``r2_NAME`` of each.

    Parameters
    ----------
    prediction, target : (S, T) or (S,) floating

    Raises
    ------
    InputError
        When shapes differ, there are no samples, or a value is NaN or infinite.
    """
    result: dict[str, float] = {}
    for function in (mae, rmse, r2):
        values = function(prediction, target)
        result[function.__name__] = float(values.mean())
        if len(names) > 1:
            pairs = zip(names, values, strict=True)
            result |= {f"{function.__name__}_{name}": float(value) for name, value in pairs}
    return result


def interval_scores(lower: Array, upper: Array, target: Array) -> dict[str, float]:
    """Return ``coverage``, the share of targets between the bounds, and their mean ``width``; (S, T) each."""
    lower, upper = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    return {
        "coverage": float(np.mean((lower <= target) & (target <= upper))), "width": float(np.mean(upper - lower)),
    }  # fmt: skip


def _pair(prediction: Array, target: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if first.shape != second.shape or first.ndim not in (1, 2) or first.size == 0:
        raise InputError(
            f"predictions of shape {first.shape} and targets of shape {second.shape} cannot be compared: "
            "expected the same (samples, targets), none of them 0"
        )
    for what, values in (("predictions", first), ("targets", second)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise InputError(f"{bad} of {values.size} {what} are NaN or infinite: leave those samples out")
    return (first[:, None], second[:, None]) if first.ndim == 1 else (first, second)
