import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.regression import baselines
from stm_models.regression.baselines import fit_baselines
from stm_models.regression.components import principal_components


def _data(groups=20, per_group=5, bend=False, seed=0, targets=1):
    """Images along a line, or along an arc, as the target grows; groups and noise in other directions."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(3, 1, 12, 11))
    group = np.repeat(np.arange(groups), per_group)
    u = np.repeat(rng.uniform(0, 6, groups), per_group)
    shift = np.repeat(rng.normal(0, 0.3, groups), per_group)
    images = (
        np.einsum("s,cyx->scyx", 3 * np.cos(0.7 * u) if bend else u, patterns[0])
        + bend * np.einsum("s,cyx->scyx", np.sin(0.7 * u), 3 * patterns[1])
        + np.einsum("s,cyx->scyx", shift, patterns[2])
        + rng.normal(0, 0.05, (len(u), 1, 12, 11))
    )
    target = np.stack([u, 3 - 2 * u], axis=1)[:, :targets]
    return (1e-3 * images + 0.5).astype(np.float32), target, group


def test_mean_is_the_training_mean():
    images, targets, groups = _data(targets=2)
    prediction = fit_baselines(["mean"], images, targets, groups, 0)["mean"](images[:3])
    np.testing.assert_allclose(prediction, np.tile(targets.mean(axis=0), (3, 1)))


def test_components_against_the_exact_decomposition():
    images, *_ = _data()
    fitted = principal_components(images, 5, seed=0)
    z = (images - images.mean(axis=0, dtype=np.float64)) / images.std(axis=0, dtype=np.float64)
    _, s, v = np.linalg.svd(z.reshape(len(z), -1), full_matrices=False)
    np.testing.assert_allclose(fitted.variances[:3], s[:3] ** 2 / (len(z) - 1), rtol=1e-3)
    overlap = np.abs(np.sum(fitted.vectors[:3] * v[:3], axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    scores = fitted.scores(images)
    assert np.square(scores).mean() == pytest.approx(1, rel=0.02)
    np.testing.assert_allclose(
        scores.std(axis=0) / scores[:, 0].std(), np.sqrt(fitted.variances / fitted.variances[0]), rtol=1e-3
    )


def test_components_leave_out_directions_without_variance():
    images, *_ = _data(groups=4, per_group=1)
    images = np.concatenate([images, images])
    assert len(principal_components(images, 20, seed=0).variances) == 3
    with pytest.raises(InputError, match="are equal"):
        principal_components(images[[0, 0]], 20, seed=0)
    with pytest.raises(InputError, match="too few"):
        principal_components(images[:1], 20, seed=0)


@pytest.mark.parametrize("count", [20, 3])
def test_ridge_against_the_closed_form(monkeypatch, count):
    monkeypatch.setattr(baselines, "_RIDGE", {"alpha": [3.0]})
    images, targets, groups = _data(targets=2)
    test, *_ = _data(seed=5)
    prediction = fit_baselines(["ridge"], images, targets, groups, 0, components=count)["ridge"](test)
    components = principal_components(images, count, 0)
    x, mean, scale = components.scores(images), targets.mean(axis=0), targets.std(axis=0)
    centre = x.mean(axis=0)
    x = x - centre
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ ((targets - mean) / scale))
    expected = (components.scores(test) - centre) @ weights * scale + mean
    np.testing.assert_allclose(prediction, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [20, 3, 200])  # the images have fewer than 200
def test_kernel_ridge_against_the_closed_form(monkeypatch, count):
    images, targets, groups = _data()
    kept = len(principal_components(images, count, 0).variances)
    monkeypatch.setattr(baselines, "_KERNEL", {"alpha": [0.1], "gamma": [0.02 * kept]})
    test, *_ = _data(seed=5)
    prediction = fit_baselines(["kernel_ridge"], images, targets, groups, 0, components=count)["kernel_ridge"](test)
    components = principal_components(images, count, 0)
    x, new = components.scores(images), components.scores(test)

    def kernel(first, second):
        return np.exp(-0.02 * np.square(first[:, None] - second[None]).sum(axis=2))

    mean, scale = targets.mean(axis=0), targets.std(axis=0)
    weights = np.linalg.solve(kernel(x, x) + 0.1 * np.eye(len(x)), (targets - mean) / scale)
    np.testing.assert_allclose(prediction, kernel(new, x) @ weights * scale + mean, rtol=1e-6, atol=1e-6)


def test_each_is_better_than_the_simpler_one_on_curved_data():
    images, targets, groups = _data(groups=60, bend=True)
    test, truth, _ = _data(groups=30, bend=True, seed=7)
    fitted = fit_baselines(["mean", "ridge", "kernel_ridge"], images, targets, groups, 0)
    error = {name: np.abs(predict(test) - truth).mean() for name, predict in fitted.items()}
    assert error["kernel_ridge"] < 0.2 * error["ridge"] < 0.2 * error["mean"]


def test_cross_validation_never_splits_a_group(monkeypatch):
    seen = []
    real = baselines.GroupKFold

    class Watched(real):
        def split(self, x, y=None, groups=None):
            for train, test in super().split(x, y, groups):
                seen.append(set(groups[train]) & set(groups[test]))
                yield train, test

    monkeypatch.setattr(baselines, "GroupKFold", Watched)
    images, targets, groups = _data()
    fit_baselines(["ridge"], images, targets, groups, 0)
    assert seen == [set()] * 5


def test_same_seed_same_predictions():
    images, targets, groups = _data()
    first, second = (fit_baselines(["kernel_ridge"], images, targets, groups, 4) for _ in range(2))
    assert np.array_equal(first["kernel_ridge"](images), second["kernel_ridge"](images))


def test_mistakes_are_named():
    images, targets, groups = _data()
    with pytest.raises(InputError, match=r"unknown baseline 'rigde'.*did you mean 'ridge'"):
        fit_baselines(["rigde"], images, targets, groups, 0)
    with pytest.raises(InputError, match="at least 2 groups, got 1"):
        fit_baselines(["ridge"], images, targets, np.zeros(len(images)), 0)
    with pytest.raises(InputError, match="do not fit together"):
        fit_baselines(["ridge"], images, targets[:-1], groups, 0)
    with pytest.raises(InputError, match="NaN"):
        fit_baselines(["mean"], images, targets * np.nan, groups, 0)
    with pytest.raises(InputError, match=r"expected \(1, 12, 11\)"):
        fit_baselines(["ridge"], images, targets, groups, 0)["ridge"](images[..., :3])


def test_a_thousand_images_are_fitted():
    rng = np.random.default_rng(0)
    u = rng.uniform(0, 6, 1000)
    images = rng.normal(0, 0.1, (1000, 1, 128, 128)).astype(np.float32)
    images += u[:, None, None, None].astype(np.float32) * rng.normal(size=(1, 128, 128)).astype(np.float32)
    fitted = fit_baselines(["ridge", "kernel_ridge"], images, u[:, None], np.arange(1000) // 4, 0)
    assert np.abs(fitted["ridge"](images[:50])[:, 0] - u[:50]).mean() < 0.05
