"""Similarity and components against scikit-learn's, levels against their definition."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from stm_models.errors import InputError
from stm_models.signal.similarity import levels, principal_components, similarity

RNG = np.random.default_rng(3)
IMAGES = (RNG.normal(size=(2, 9, 8)) * np.arange(1, 31)[:, None, None, None] + RNG.normal(size=(30, 2, 9, 8))).astype(
    "f4"
)
LEVEL = np.arange(30) % 4


def standardised(images):
    flat = images.reshape(len(images), -1).astype(float)
    return (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)


def test_similarity_is_the_cosine_of_mean_standardised_images():
    found = similarity(IMAGES, LEVEL)
    flat = standardised(IMAGES)
    means = np.array([flat[level == LEVEL].mean(0) for level in range(4)])
    np.testing.assert_allclose(found.matrix, cosine_similarity(means), atol=1e-12)
    assert np.array_equal(found.matrix, found.matrix.T)
    assert np.array_equal(np.diag(found.matrix), np.ones(4))
    assert found.count.tolist() == [8, 8, 7, 7]
    np.testing.assert_array_equal(found.between, found.matrix[np.triu_indices(4, 1)])


def test_similarity_within_a_level_is_the_mean_over_pairs():
    found = similarity(IMAGES[:9], np.array([0, 0, 0, 0, 1, 1, 1, 1, 2]))
    pairs = cosine_similarity(standardised(IMAGES[:4]))[np.triu_indices(4, 1)]
    assert found.within[0] == pytest.approx(pairs.mean(), abs=1e-12)
    assert np.isnan(found.within[2])


def test_similarity_does_not_see_gain_and_offset():
    gains = RNG.uniform(0.5, 2, (30, 1, 1, 1))
    other = similarity(IMAGES * gains + RNG.uniform(-1, 1, (30, 1, 1, 1)), LEVEL)
    np.testing.assert_allclose(other.matrix, similarity(IMAGES, LEVEL).matrix, atol=1e-6)
    assert similarity(-IMAGES[[0, 0]] * [[[[1]]], [[[-1]]]], np.array([0, 1])).matrix[0, 1] == pytest.approx(-1)


def test_an_image_without_structure_is_refused():
    flat = IMAGES.copy()
    flat[7] = 2.5
    with pytest.raises(InputError, match="image 7 has the same value everywhere"):
        similarity(flat, LEVEL)


@pytest.mark.parametrize("count", [3, 8])
def test_components_are_those_of_scikit_learn(count):
    found = principal_components(IMAGES, count)
    oracle = PCA(count, svd_solver="full")
    scores = oracle.fit_transform(IMAGES.reshape(30, -1).astype(float))
    np.testing.assert_allclose(found.patterns.reshape(count, -1), oracle.components_, atol=1e-7)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_allclose(found.explained, oracle.explained_variance_ratio_, atol=1e-9)
    assert found.patterns.shape == (count, 2, 9, 8)


def test_large_images_are_taken_in_blocks():
    images = RNG.normal(size=(6, 1, 90, 100)).astype("f4")
    found = principal_components(images, 5)
    oracle = PCA(5, svd_solver="full").fit(images.reshape(6, -1).astype(float))
    np.testing.assert_allclose(found.patterns.reshape(5, -1), oracle.components_, atol=1e-8)


def test_few_images_have_few_components():
    found = principal_components(IMAGES[:3], 8)
    assert found.explained.shape == (2,)
    assert found.explained.sum() == pytest.approx(1)
    with pytest.raises(InputError, match="all 4 images are equal"):
        principal_components(IMAGES[[5, 5, 5, 5]], 3)
    with pytest.raises(InputError, match="at least 2"):
        principal_components(IMAGES[:1], 3)


def test_many_values_become_bands():
    values = RNG.permutation(np.linspace(0, 6, 103))
    centres, level = levels(values, most=10)
    assert len(centres) == 10
    assert np.all(np.diff(centres) > 0)
    assert set(np.bincount(level).tolist()) == {10, 11}
    for band in range(10):
        assert centres[band] == pytest.approx(values[level == band].mean())
    assert values[level == 3].max() < values[level == 4].min()


@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e15])
def test_values_are_told_apart_in_any_unit(unit):
    given = np.array([0.1 + 0.2, 0.3, 6.0, 0.0]) * unit
    centres, level = levels(given)
    np.testing.assert_allclose(centres, np.array([0, 0.3, 6]) * unit, rtol=1e-8)
    assert level.tolist() == [1, 1, 2, 0]
