import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from stm_models.errors import InputError
from stm_models.signal.conformal import tail_table
from stm_models.training.novelty import Novelty

MIX = np.random.default_rng(42).normal(size=(12, 12))


def _features(count, seed, shift=0.0):
    return np.random.default_rng(seed).normal(size=(count, 12)) @ MIX + 3 + shift


@pytest.fixture(scope="module")
def fitted():
    sets = {"clean": (_features(99, 1), np.arange(99)), "wide": (1.3 * _features(99, 2), np.arange(99))}
    return Novelty.fit(_features(2000, 0)).calibrated(sets)


def _asked(novelty, features):
    distance = novelty(torch.from_numpy(features.astype(np.float32)))
    return distance.numpy(), novelty.p_value(distance).numpy()


def test_distance_is_the_mahalanobis_distance_of_enough_images(fitted):
    novelty, quantiles = fitted
    known, new = _features(2000, 0), _features(20, 3)
    centre, spread = known.mean(axis=0), known.std(axis=0)
    shrunk = LedoitWolf().fit((known - centre) / spread)
    expected = np.sqrt(shrunk.mahalanobis((new - centre) / spread) / 12) / novelty.unit.item()
    np.testing.assert_allclose(_asked(novelty, new)[0], expected, rtol=1e-4)
    assert list(quantiles) == ["0.5", "0.95", "0.99", "1.0"]
    assert quantiles["0.5"] == pytest.approx(1, abs=1e-6)


def test_p_value_is_that_of_the_kind_that_fits_best(fitted):
    novelty, _ = fitted
    distance, chance = _asked(novelty, _features(50, 4, 0.5))
    found = []
    for features, groups in ((_features(99, 1), np.arange(99)), (1.3 * _features(99, 2), np.arange(99))):
        found.append(tail_table(_asked(novelty, features)[0], groups)(distance))
    np.testing.assert_allclose(chance, np.max(found, axis=0), atol=1e-4)


@pytest.mark.parametrize("kind", ["clean", "wide"])
def test_false_alarms_are_no_more_often_than_stated(kind):
    """Over many calibrations: P(p <= .05) of new samples of either kind is at most .05."""
    factor = {"clean": 1.0, "wide": 1.3}[kind]
    base, alarms = Novelty.fit(_features(500, 0)), []
    for seed in range(60):
        sets = {
            name: (size * _features(40, 1000 + 2 * seed + (size > 1)), np.arange(40))
            for name, size in (("clean", 1.0), ("wide", 1.3))
        }
        novelty, _ = base.calibrated(sets)
        alarms.append(np.mean(_asked(novelty, factor * _features(200, 5000 + seed))[1] <= 0.05))
    assert np.mean(alarms) <= 0.05 + 3 * np.std(alarms) / np.sqrt(len(alarms))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grows_with_displacement_and_its_p_value_falls(fitted, seed):
    novelty, _ = fitted
    direction = np.random.default_rng(seed).normal(size=12)
    steps = np.array([0, 0.3, 1, 3, 10, 100, 1e4, 1e6])
    distance, chance = _asked(novelty, novelty.mean.numpy() + steps[:, None] * direction)
    assert (np.diff(distance) > 0).all()
    assert (np.diff(chance) <= 0).all()
    assert chance[0] == 1
    assert chance[-1] == pytest.approx(1 / 100)


def test_features_that_never_varied_cannot_overflow():
    known, held = _features(60, 0), _features(20, 1)
    known[:, 3] = held[:, 3] = 1.0
    novelty, _ = Novelty.fit(known).calibrated({"clean": (held, np.arange(20))})
    distance, chance = _asked(novelty, held + 1e6)
    assert np.isfinite(distance).all()
    assert chance.max() == pytest.approx(1 / 21)


def test_exports_with_a_dynamic_batch(fitted):
    novelty, _ = fitted
    both = torch.nn.Sequential(novelty)
    program = torch.export.export(both, (torch.zeros(3, 12),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.from_numpy(_features(6, 4).astype(np.float32))
    torch.testing.assert_close(program.module()(x), novelty(x))
    assert not list(novelty.parameters())


def test_mistakes_are_named():
    with pytest.raises(InputError, match="at least 2 images"):
        Novelty.fit(_features(1, 0))
    with pytest.raises(InputError, match="NaN"):
        Novelty.fit(_features(5, 0) * np.nan)
    with pytest.raises(InputError, match="same features"):
        Novelty.fit(np.ones((5, 3)))
    with pytest.raises(InputError, match="held-out images of every kind"):
        Novelty.fit(_features(50, 0)).calibrated({"clean": (_features(0, 1), np.arange(0))})
