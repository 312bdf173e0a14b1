"""Features in a plane: against what is known of the points that they were made from."""

from __future__ import annotations

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.signal.embedding import agreement, displacement, neighbourhoods, principal_plane


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_the_plane_is_that_of_the_fitted_samples(rng):
    inside = rng.normal(size=(40, 2)) * (3, 1)
    directions = np.linalg.qr(rng.normal(size=(7, 7)))[0][:2]
    features = np.vstack([inside @ directions, 100 * rng.normal(size=(5, 7))]) + 2
    points, explained = principal_plane(features, np.arange(45) < 40)
    assert explained.sum() == pytest.approx(1)
    assert explained[0] > 0.7
    between = np.linalg.norm(inside[:, None] - inside, axis=2)
    np.testing.assert_allclose(np.linalg.norm(points[:40, None] - points[:40], axis=2), between, atol=1e-9)
    np.testing.assert_allclose(points[:40].mean(axis=0), 0, atol=1e-9)
    assert np.abs(points[40:]).max() > 30  # where they fall, not where they would put the plane
    line, share = principal_plane(np.outer(np.arange(6.0), np.ones(3)), np.ones(6, bool))
    assert share.tolist() == pytest.approx([1, 0])
    assert not line[:, 1].any()
    with pytest.raises(InputError, match="equal"):
        principal_plane(np.ones((6, 3)), np.ones(6, bool))


def test_neighbours_stay_neighbours(rng):
    cluster = np.repeat([0, 1, 2], 30)
    features = 10 * np.eye(8)[cluster] + 0.1 * rng.normal(size=(90, 8))
    points = neighbourhoods(features, 3)
    np.testing.assert_array_equal(points, neighbourhoods(features, 3))
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (cluster[distance.argmin(axis=1)] == cluster).all()
    assert neighbourhoods(features[:, :1], 0).shape == (90, 2)
    assert np.isfinite(neighbourhoods(features[:4], 0)).all()
    with pytest.raises(InputError, match="at least 4"):
        neighbourhoods(features[:3], 0)


def test_agreement_is_that_of_other_states(rng):
    value = np.linspace(0, 1, 120)
    curve = np.column_stack([np.cos(value), np.sin(value)]) * 50
    groups = np.arange(120)
    assert agreement(curve, value, groups) > 0.99
    assert agreement(rng.normal(size=(120, 2)), value, groups) < 0.2
    # Features that merely tell states apart know nothing of a quantity that is drawn for each of them.
    state = np.repeat(np.arange(30), 4)
    told = rng.normal(size=(30, 9))[state]
    own = rng.normal(size=30)[state]
    assert agreement(told, own, state) < 0.3 < 0.99 < agreement(told, own, groups, neighbours=3)
    assert np.isnan(agreement(curve, np.ones(120), groups))
    assert np.isnan(agreement(curve, value, np.zeros(120, int)))


def test_agreement_is_the_mean_over_the_nearest_ones():
    features, values = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([1.0, 2.0, 4.0, 9.0])
    expected = np.array([(2 + 4) / 2, (1 + 4) / 2, (2 + 1) / 2, (4 + 2) / 2])
    want = 1 - np.square(values - expected).sum() / np.square(values - 4).sum()
    assert agreement(features, values, np.arange(4), neighbours=2) == pytest.approx(want)


def test_displacement_is_in_units_of_the_spread(rng):
    before = rng.normal(size=(50, 3)) + 7
    spread = np.sqrt(np.square(before - before.mean(axis=0)).sum(axis=1).mean())
    assert displacement(before, before) == 0
    assert displacement(before, before + np.array([0, 3 * spread, 0])) == pytest.approx(3)
