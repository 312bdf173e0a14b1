"""Scores of explanations against cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.explain import localisation
from stm_models.explain.faithfulness import curves, evaluate_in_batches, max_sensitivity, order, random_orders

SHAPE = (2, 6, 7)


class Linear:
    """Answer w . x; counts the largest batch that it was asked about."""

    def __init__(self, weights):
        self.weights, self.largest = weights, 0

    def __call__(self, images):
        self.largest = max(self.largest, len(images))
        return np.tensordot(images, self.weights, axes=3)


def _weights(seed=0):
    """Positive weights of one pixel in both channels, all different."""
    values = np.random.default_rng(seed).permutation(SHAPE[1] * SHAPE[2]).astype(np.float64) + 1
    return np.stack([values.reshape(SHAPE[1:])] * 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_of_a_linear_model_is_perfect_and_a_random_map_is_not(seed):
    weights = _weights(seed)
    answer, image, empty = Linear(weights), np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    record = curves(answer, image, weights, empty, draws=20, steps=14, seed=seed).record()
    # No order of the pixels removes more at once: sorted weights are the best possible curve.
    ordered = np.concatenate([[0], np.cumsum(np.sort(weights.sum(axis=0).ravel())[::-1])])
    counts = np.round(np.array(record["curves"]["fraction"]) * SHAPE[1] * SHAPE[2]).astype(int)
    np.testing.assert_allclose(record["curves"]["deletion"], ordered[-1] - ordered[counts], rtol=1e-6)
    np.testing.assert_allclose(record["curves"]["insertion"], ordered[counts], rtol=1e-6)
    np.testing.assert_allclose(
        record["deletion"]["area"], np.trapezoid((ordered[-1] - ordered[counts]), counts / counts[-1]), rtol=1e-6
    )
    for kind in ("deletion", "insertion"):
        assert record[kind]["beaten"] == 1
        assert record[kind]["gain"] == pytest.approx(record[kind]["random"] - record[kind]["area"])
        assert record[kind]["gain"] > 3 * record[kind]["random_sd"]
    assert record["answer"] == pytest.approx(weights.sum())
    assert record["answer_to_reference"] == 0
    drawn = np.random.default_rng(seed + 50).normal(size=SHAPE)
    other = curves(answer, image, drawn, empty, draws=20, steps=14, seed=seed).record()
    worst = curves(answer, image, 1 / weights, empty, draws=20, steps=14, seed=seed).record()
    for kind in ("deletion", "insertion"):
        assert abs(other[kind]["gain"]) < 4 * other[kind]["random_sd"]
        assert worst[kind]["beaten"] == 0


def test_random_insertion_is_random_deletion_from_the_other_end():
    weights = _weights()
    answer, image, empty = Linear(weights), np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    found = random_orders(answer, image, empty, steps=6, draws=3, seed=5)
    np.testing.assert_allclose(found.fractions + found.fractions[::-1], 1)
    np.testing.assert_allclose(found.insertion[:, [0, -1]], [[0, weights.sum()]] * 3)
    assert (np.diff(found.insertion, axis=1) > 0).all()
    again = random_orders(answer, image, empty, steps=6, draws=3, seed=5)
    np.testing.assert_array_equal(found.deletion, again.deletion)
    assert not np.array_equal(found.deletion, random_orders(answer, image, empty, steps=6, draws=3, seed=6).deletion)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6), st.booleans())
def test_only_the_order_of_a_map_matters(seed, scale, negative):
    rng = np.random.default_rng(seed)
    # Some pixels of no importance, in an order of their own.
    map = rng.normal(size=SHAPE) * (rng.random(SHAPE[1:]) < 0.7)
    changed = map * (-scale if negative else scale)
    np.testing.assert_array_equal(order(map, seed), order(changed, seed))
    answer, image, other = Linear(rng.normal(size=SHAPE)), rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    one, two = (curves(answer, image, own, other, draws=2, steps=4, seed=seed).record() for own in (map, changed))
    assert one == two


def test_pixels_without_importance_come_last_and_not_in_rows():
    map = np.zeros((1, 20, 20))
    map[0, 3, 4], map[0, 7, 7] = -2.0, 1.0
    found = order(map, seed=0)
    assert found[:2].tolist() == [64, 147]
    assert sorted(found) == list(range(400))
    assert np.abs(np.corrcoef(found[2:], np.arange(398))[0, 1]) < 0.2


def test_batches_are_bounded_whatever_the_size():
    answer = Linear(np.ones((1, 2048, 2048)))
    image = np.ones((1, 2048, 2048), np.float32)
    found = evaluate_in_batches(answer, iter([image, 2 * image, 3 * image]), image.size)
    assert answer.largest == 1
    np.testing.assert_allclose(found / image.size, [1, 2, 3])
    small = Linear(np.ones((1, 2, 2)))
    assert len(evaluate_in_batches(small, iter([np.ones((1, 2, 2))] * 130), 4)) == 130
    assert small.largest == 64


def test_sensitivity_of_a_map_that_is_the_image_and_of_one_that_never_moves():
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    assert max_sensitivity(lambda images: np.ones_like(images), image) == 0
    found = max_sensitivity(lambda images: images, image, radius=0.1, draws=50, seed=1)
    # Uniform noise in +- r s has the spread r s / sqrt 3.
    assert found == pytest.approx(0.1 / np.sqrt(3), rel=0.25)
    twice = max_sensitivity(lambda images: 7 * images, image, radius=0.2, draws=50, seed=1)
    assert twice == pytest.approx(2 * found, rel=1e-4)
    assert max_sensitivity(lambda images: images - image, image) == np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(max_sensitivity(lambda images: np.sqrt(images - image.min()), image, radius=5.0, draws=20))


def test_shares_of_known_regions_and_what_the_answer_loses_without_them():
    spot, ring = np.zeros((2, *SHAPE[1:]), bool)
    spot[2:4, 2:4] = True
    ring[0] = True
    regions = localisation.partition({"spot": spot, "ring": ring}, SHAPE[1:])
    assert list(regions) == ["spot", "ring", "elsewhere"]
    assert sum(localisation.areas(regions).values()) == pytest.approx(1)
    map = np.zeros(SHAPE)
    map[0, spot], map[1, spot], map[:, ring] = -3.0, 1.0, 0.5
    found = localisation.shares(map, regions)
    assert found == pytest.approx({"spot": 16 / 23, "ring": 7 / 23, "elsewhere": 0})
    assert localisation.shares(-8 * map, regions) == pytest.approx(found)
    assert set(localisation.shares(0 * map, regions).values()) == {0}
    flat = localisation.shares(np.ones(SHAPE), regions)
    assert flat == pytest.approx(localisation.areas(regions))
    answer, image, empty = Linear(_weights()), np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    lost = localisation.effects(answer, image, empty, regions)
    assert lost == pytest.approx({name: -_weights()[:, mask].sum() for name, mask in regions.items()})


def test_mistakes_are_named():
    image, mask = np.zeros(SHAPE), np.ones(SHAPE[1:], bool)
    answer = Linear(np.zeros(SHAPE))
    with pytest.raises(InputError, match="the map has shape"):
        curves(answer, image, image[:, :3], image)
    with pytest.raises(InputError, match="NaN"):
        curves(answer, image, np.full(SHAPE, np.nan), image)
    with pytest.raises(InputError, match="reference"):
        random_orders(answer, image, image[:, :3])
    with pytest.raises(InputError, match="at least 2"):
        random_orders(answer, image, image, steps=1)
    with pytest.raises(InputError, match="draws is 0"):
        random_orders(answer, image, image, draws=0)
    with pytest.raises(InputError, match="overlap"):
        localisation.partition({"a": mask, "b": mask}, SHAPE[1:])
    with pytest.raises(InputError, match="expected bool"):
        localisation.partition({"a": mask[:3]}, SHAPE[1:])
