"""Eq. 3 against naive loops, and the variants."""

import math

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.physics.surface.friedel import generate, render
from stm_models.physics.surface.friedel_recipe import Recipe
from stm_models.physics.surface.materials import create

BIASES = create("Au(111)").biases(3)
WAVE_NUMBERS = create("Au(111)").wave_number(BIASES, 4.6875)


def sample(recipe, count=2, seed=0):
    return generate(recipe, BIASES, WAVE_NUMBERS, count, np.random.default_rng(seed))


def naive(recipe, draws, k):
    """arXiv:2006.15898, Eq. 3, pixel by pixel."""
    images = np.empty(draws.normal.shape)
    samples, biases, size, _ = images.shape
    for s in range(samples):
        fields = np.zeros((biases, size, size))
        for v, y, x in np.ndindex(fields.shape):
            for w in range(draws.total[s]):
                r = math.dist((y, x), draws.positions[s, w])
                wave = math.cos(2 * k[v] * r + draws.phase[s, v, w])
                fields[v, y, x] += draws.amplitude[s, v, w] * wave / (r + recipe.cutoff) ** draws.exponent[s]
        for v in range(biases):
            field = fields[v] - fields[v].mean()
            images[s, v] = field / np.abs(field).max() + draws.noise[s] * draws.normal[s, v]
    return images


RICH = Recipe(
    size=24, impurities=(3, 6), on_pixel=False, minimum_distance=3.0, exponent=(1.0, 2.0), phase="smooth",
    noise=(0.0, 1.0),
)  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [Recipe(), Recipe(noise=(0.0, 0.0), exponent=(1.3, 1.3)), RICH],
    ids=["paper", "no noise, other power", "everything"],
)
def test_against_naive_loops(recipe):
    samples = sample(recipe)
    assert samples.images.dtype == np.float32
    assert samples.images.shape == (2, 3, recipe.size, recipe.size)
    np.testing.assert_allclose(samples.images, naive(recipe, samples.draws, WAVE_NUMBERS), atol=1e-6)


def test_papers_normalisation_and_ranges():
    samples = sample(Recipe(noise=(0.0, 0.0)), 200)
    np.testing.assert_allclose(samples.images.mean(axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(samples.images).max(axis=(2, 3)), 1, atol=1e-6)
    draws = samples.draws
    assert set(draws.total) == set(range(1, 9))
    assert 0.3 <= draws.amplitude.min() < 0.31
    assert 0.99 < draws.amplitude.max() <= 1
    assert 0 <= draws.phase.min() < 0.05
    assert 6.2 < draws.phase.max() < 2 * np.pi
    assert np.abs(np.diff(draws.phase, axis=1)).mean() > 1  # drawn anew at each bias
    noisy = sample(Recipe(), 200)
    assert (noisy.images - render(Recipe(noise=(0.0, 0.0)), noisy.draws, np.tile(WAVE_NUMBERS, (200, 1)))).std() < 1e-6
    quiet = np.zeros_like(noisy.draws.noise)
    clean = render(
        Recipe(), type(noisy.draws)(**{**vars(noisy.draws), "noise": quiet}), np.tile(WAVE_NUMBERS, (200, 1))
    )
    assert (noisy.images - clean).std() == pytest.approx(0.8, rel=0.01)


def test_positions_keep_their_distance_in_the_frame():
    draws = sample(RICH, 60).draws
    for s in range(60):
        total = draws.total[s]
        places = draws.positions[s, :total]
        assert not np.isnan(places).any()
        assert np.isnan(draws.positions[s, total:]).all()
        assert np.all((places >= -0.5) & (places < 23.5))
        gaps = np.linalg.norm(places[:, None] - places, axis=2) + 1e9 * np.eye(total)
        assert gaps.min() >= 3
    assert np.mod(draws.positions[0, 0], 1).any()
    on_pixel = sample(Recipe()).draws.positions
    np.testing.assert_array_equal(on_pixel[~np.isnan(on_pixel)] % 1, 0)


def test_smooth_phases_change_linearly_with_the_bias():
    draws = sample(Recipe(phase="smooth"), 400).draws
    np.testing.assert_allclose(np.diff(draws.phase, 2, axis=1), 0, atol=1e-12)
    slope = (draws.phase[:, -1] - draws.phase[:, 0]) / (BIASES[-1] - BIASES[0])
    assert slope.std() == pytest.approx(6.0, rel=0.1)
    relative = draws.amplitude[:, -1] / draws.amplitude[:, 1] - 1
    assert relative.std() == pytest.approx(BIASES[-1] - BIASES[1], rel=0.1)


def test_same_seed_same_samples():
    first, again, other = sample(RICH), sample(RICH), sample(RICH, seed=1)
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_a_quarter_of_the_frame_can_be_filled_every_time():
    full = Recipe(size=24, impurities=(20, 20), minimum_distance=3.0, on_pixel=False)  # discs of 1.5 px
    places = sample(full, count=50).draws.positions
    assert np.isfinite(places[:, :20]).all()
    apart = np.linalg.norm(places[:, :20, None] - places[:, None, :20], axis=-1) + 99 * np.eye(20)
    assert apart.min() >= 3.0


def test_wave_numbers_may_differ_from_sample_to_sample():
    k = np.stack([WAVE_NUMBERS, 1.05 * WAVE_NUMBERS])
    both = generate(Recipe(), BIASES, k, 2, np.random.default_rng(0)).images
    np.testing.assert_array_equal(both[0], sample(Recipe()).images[0])
    assert np.abs(both[1] - sample(Recipe()).images[1]).max() > 0.01


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="one wave number for each bias"):
        generate(Recipe(), BIASES, WAVE_NUMBERS[:2], 1, rng)
    with pytest.raises(InputError, match="positive"):
        generate(Recipe(), BIASES, -WAVE_NUMBERS, 1, rng)
    with pytest.raises(InputError, match="do not fit"):
        generate(Recipe(size=8, impurities=(9, 9), minimum_distance=6), BIASES, WAVE_NUMBERS, 1, rng)
    with pytest.raises(InputError, match="choose from independent, smooth"):
        Recipe(phase="linear")
    for wrong in ({"impurities": (0, 3)}, {"impurities": (5, 3)}, {"noise": (-1, 1)}, {"size": 1}, {"cutoff": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Recipe(**wrong)
