"""The fit against scikit-learn's, and against the truth of pseudo-experiments."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from stm_models.errors import InputError
from stm_models.physics.surface.bound_state import BoundState, bound_state_map
from stm_models.physics.surface.placement import place
from stm_models.signal.matching import detection_scores, match
from stm_models.signal.mixture import fit_mixture, reference_positions


def counts(rng, background=0, shape=(50, 60)):
    """Points drawn from three Gaussians, two of them close, counted in pixels; the points themselves."""
    centres = np.array([[12.3, 15.1], [15.2, 19.4], [35.0, 40.7]])
    widths, numbers = np.array([1.2, 1.8, 2.5]), (3000, 2000, 4000)
    drawn = [c + w * rng.standard_normal((n, 2)) for c, w, n in zip(centres, widths, numbers, strict=True)]
    pixels = np.rint(np.concatenate([*drawn, rng.uniform(-0.5, np.array(shape) - 0.5, (background, 2))])).astype(int)
    result = np.zeros(shape)
    np.add.at(result, tuple(pixels.T), 1)
    return result, pixels, centres, widths


def test_it_is_scikit_learns_fit():
    weights, pixels, centres, _ = counts(np.random.default_rng(0))
    starts = centres + 0.8
    ours = fit_mixture(weights, starts, shared=False, background=False, tolerance=1e-10, max_iterations=2000)
    theirs = GaussianMixture(
        3, covariance_type="spherical", means_init=starts, tol=1e-8, max_iter=2000, reg_covar=0
    ).fit(pixels)
    np.testing.assert_allclose(ours.positions, theirs.means_, atol=2e-3)
    np.testing.assert_allclose(ours.width**2, theirs.covariances_, rtol=2e-3)
    np.testing.assert_allclose(ours.weight, theirs.weights_, atol=1e-3)
    assert ours.log_likelihood == pytest.approx(theirs.score(pixels), abs=1e-5)


def test_a_background_does_not_pull():
    weights, _, centres, widths = counts(np.random.default_rng(1), background=6000)
    fitted = fit_mixture(weights, centres + 0.5, shared=False, max_iterations=500, tolerance=1e-8)
    np.testing.assert_allclose(fitted.positions, centres, atol=0.15)
    np.testing.assert_allclose(fitted.width, np.sqrt(widths**2 + 1 / 12), rtol=0.08)
    assert fitted.background == pytest.approx(6000 / 15000, abs=0.02)
    assert fitted.weight.sum() + fitted.background == pytest.approx(1)
    pulled = fit_mixture(weights, centres + 0.5, shared=False, background=False, max_iterations=500)
    assert np.abs(pulled.width - np.sqrt(widths**2 + 1 / 12)).max() > 0.5


def test_the_likelihood_never_falls_and_a_shared_width_is_one():
    weights, _, centres, _ = counts(np.random.default_rng(2), background=3000)
    steps = [fit_mixture(weights, centres + 1, tolerance=-1.0, max_iterations=n) for n in range(1, 20)]
    assert np.all(np.diff([s.log_likelihood for s in steps]) > -1e-9)
    assert np.ptp(steps[-1].width) == 0


def test_positions_without_noise_are_exact():
    rng = np.random.default_rng(3)
    truth = place(rng, 20, 60, 0.0, 8.0, np.array([[-99.0, -99.0]]))
    clean = BoundState(noise=0.0, tail=0.0)
    found = reference_positions(bound_state_map(truth, 60, clean, rng))
    inner = np.all((truth > 3) & (truth < 56), axis=1)
    pairs = match(found.positions, truth[inner])
    assert len(pairs) == inner.sum()
    assert pairs.distance.max() < 0.05
    assert found.width[0] == pytest.approx(1.4, abs=0.1)


def test_it_answers_as_well_as_an_experiment_allows():
    found, truth = [], []
    for seed in range(6):
        rng = np.random.default_rng([11, seed])
        inside = place(rng, 55, 80, 0.0, 4.0, np.empty((0, 2)))
        outside = place(rng, 30, 80, 10.0, 4.0, inside)
        state = bound_state_map(np.concatenate([inside, outside]), 80, BoundState(), rng)
        found.append(reference_positions(state).positions)
        truth.append(inside)
    scores = detection_scores(found, truth, shape=(80, 80))
    assert scores["f1"] > 0.87
    assert scores["error_px"] < 0.25


def test_a_foreign_map_is_refused():
    with pytest.raises(InputError, match=r"shape \(3, 8, 8\)"):
        reference_positions(np.zeros((3, 8, 8)))
    with pytest.raises(InputError, match="no maximum of the bound-state map"):
        reference_positions(np.ones((20, 20)))
    with pytest.raises(InputError, match="finite weights"):
        fit_mixture(-np.ones((5, 5)), [[1, 1]])
    with pytest.raises(InputError, match="no starting positions"):
        fit_mixture(np.ones((5, 5)), [])
