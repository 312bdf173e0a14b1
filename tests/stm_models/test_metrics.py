"""Errors of predictions, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as reference

from stm_models.errors import InputError
from stm_models.regression.metrics import mae, metrics, r2, rmse


def test_metrics_against_scikit_learn():
    rng = np.random.default_rng(2)
    target = rng.normal(size=(50, 3))
    prediction = target + rng.normal(0, 0.3, (50, 3))
    np.testing.assert_allclose(
        mae(prediction, target), reference.mean_absolute_error(target, prediction, multioutput="raw_values")
    )
    np.testing.assert_allclose(
        rmse(prediction, target),
        reference.root_mean_squared_error(target, prediction, multioutput="raw_values"),
    )
    np.testing.assert_allclose(r2(prediction, target), reference.r2_score(target, prediction, multioutput="raw_values"))
    scores = metrics(prediction, target, ["a", "b", "c"])
    assert scores["r2"] == pytest.approx(reference.r2_score(target, prediction))
    assert scores["mae_b"] == pytest.approx(np.abs(prediction - target)[:, 1].mean())
    assert set(metrics(prediction[:, :1], target[:, :1], ["a"])) == {"mae", "rmse", "r2"}


def test_metrics_of_a_constant_target_are_finite():
    target = np.full((4, 1), 2.0)
    assert metrics(target, target) == {"mae": 0, "rmse": 0, "r2": 1}
    assert metrics(target + 1, target) == {"mae": 1, "rmse": 1, "r2": 0}
    for value in (0.1, 0.7, 7.9):  # numbers whose mean is another number
        same = np.full((24, 1), value)
        assert r2(same + 0.05, same) == 0
        assert r2(same, same) == 1


def test_metrics_refuse_nan_and_other_shapes():
    with pytest.raises(InputError, match="1 of 2 predictions are NaN"):
        metrics(np.array([1.0, np.nan]), np.zeros(2))
    with pytest.raises(InputError, match="targets are NaN"):
        metrics(np.zeros(2), np.array([1.0, np.inf]))
    with pytest.raises(InputError, match="cannot be compared"):
        metrics(np.zeros((2, 1)), np.zeros(2))
