"""The fast Fourier sum against its definition, symmetry and the rules of Fourier transforms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid, direct_transform, image, raster_image, transform

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([8, 15, 20, 33])


def points(seed, count=150, radius=40.0):
    generator = np.random.default_rng(seed)
    r = radius * np.sqrt(generator.random(count))
    angle = 2 * np.pi * generator.random(count)
    return r * np.cos(angle), r * np.sin(angle), generator.random(count) + 0.1


def error(fast, reference):
    return np.max(np.abs(fast - reference)) / np.max(np.abs(reference))


def test_grid_is_the_bragg_box_and_symmetric():
    grid = KGrid(256)
    assert grid.kx[-1] == pytest.approx(1.1 * 2 * math.pi)
    assert grid.ky[-1] == pytest.approx(1.1 * 4 * math.pi / math.sqrt(3))
    np.testing.assert_allclose(grid.kx, -grid.kx[::-1], atol=1e-12)
    np.testing.assert_allclose(np.diff(grid.ky), grid.step[1])
    np.testing.assert_allclose(np.diff(grid.kx), grid.step[0])
    assert KGrid(5).kx[2] == 0


@pytest.mark.parametrize("n", [2, 3, 64, 65, 128, 255])
def test_agrees_with_the_direct_sum(n):
    x, y, w = points(n)
    grid = KGrid(n)
    fast = transform(x, y, w, grid)
    assert fast.shape == (n, n)
    assert fast.dtype == np.complex128
    assert error(fast, direct_transform(x, y, w, grid)) < 1e-6


@pytest.mark.parametrize("n", [2, 3, 64, 65])
def test_a_raster_gives_the_image_of_its_points(n):
    x, y = np.linspace(-9, 11, 21), np.linspace(-7, 6, 33)
    weights = np.random.default_rng(n).random((33, 21)) + 0.1
    grid = KGrid(n)
    found = raster_image(x, y, weights, grid)
    xs, ys = (axis.ravel() for axis in np.meshgrid(x, y))
    assert found.dtype == np.float32
    direct = np.abs(direct_transform(xs, ys, weights.ravel(), grid)) / weights.sum()
    np.testing.assert_allclose(found, direct, atol=1e-7)
    np.testing.assert_allclose(found, image(xs, ys, weights.ravel(), grid), atol=1e-7)
    with pytest.raises(InputError, match="positive sum"):
        raster_image(x, y, -weights, grid)


@pytest.mark.parametrize("n", [32, 33])
def test_direct_sum_is_the_definition(n):
    x, y, w = points(5, count=7)
    grid = KGrid(n, 3.0, 2.0)
    row, column = 4, 21
    by_hand = sum(
        wj * np.exp(-1j * (grid.kx[column] * xj + grid.ky[row] * yj)) for xj, yj, wj in zip(x, y, w, strict=True)
    )
    assert direct_transform(x, y, w, grid)[row, column] == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("n", [40, 41])
def test_far_points_and_signed_weights(n):
    x, y, w = points(2)
    x, y, w = x + 3000, y - 5000, w - w.mean()
    grid = KGrid(n)
    assert error(transform(x, y, w, grid), direct_transform(x, y, w, grid)) < 1e-6


@pytest.mark.parametrize("n", [30, 31])
def test_batch_equals_one_by_one(n):
    x, y, w = points(3)
    batch = np.stack([w, w**2, np.sin(9 * w) + 1.2])
    grid = KGrid(n)
    together = transform(x, y, batch, grid)
    assert together.shape == (3, n, n)
    for one, vector in zip(together, batch, strict=True):
        assert error(one, direct_transform(x, y, vector, grid)) < 1e-6
    np.testing.assert_allclose(image(x, y, batch, grid)[2], image(x, y, batch[2], grid), atol=1e-6)


@given(seed=SEEDS, n=SIZES, dx=st.floats(-20, 20), dy=st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_shift_theorem(seed, n, dx, dy):
    x, y, w = points(seed, 60)
    grid = KGrid(n)
    phase = np.exp(-1j * (grid.kx * dx + grid.ky[:, None] * dy))
    scale = w.sum()
    moved = transform(x + dx, y + dy, w, grid)
    np.testing.assert_allclose(moved / scale, transform(x, y, w, grid) * phase / scale, atol=2e-6)


@given(seed=SEEDS, n=SIZES, a=st.floats(-3, 3), b=st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_linear(seed, n, a, b):
    x, y, w = points(seed, 60)
    v = np.cos(x) * w
    grid = KGrid(n)
    scale = w.sum()
    left = transform(x, y, a * w + b * v, grid) / scale
    right = (a * transform(x, y, w, grid) + b * transform(x, y, v, grid)) / scale
    np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("n", [36, 37])
def test_real_weights_give_conjugate_halves_and_an_even_image(n):
    x, y, w = points(11)
    grid = KGrid(n)
    f = transform(x, y, w, grid)
    np.testing.assert_allclose(f, np.conj(f[::-1, ::-1]), atol=1e-6 * w.sum())
    picture = image(x, y, w, grid)
    np.testing.assert_array_equal(picture, picture[::-1, ::-1])


@pytest.mark.parametrize("n", [36, 37])
def test_inversion_symmetric_points_have_a_real_transform(n):
    x, y, w = points(12)
    f = transform(np.r_[x, -x], np.r_[y, -y], np.r_[w, w], KGrid(n))
    assert np.max(np.abs(f.imag)) < 1e-6 * np.max(np.abs(f))
    assert np.max(np.abs(f.real)) > 1


def test_graphene_lattice_peaks_at_its_reciprocal_vectors():
    m, q = (v.ravel() for v in np.meshgrid(np.arange(-30, 31), np.arange(-30, 31)))
    x, y = m + q / 2, q * math.sqrt(3) / 2
    inside = np.hypot(x, y) < 25
    grid = KGrid(221)
    picture = image(x[inside], y[inside], np.ones(inside.sum()), grid)
    for angle in np.radians([30, 90, 150, 210, 270, 330]):
        k = 4 * np.pi / math.sqrt(3)
        column = np.argmin(np.abs(grid.kx - k * np.cos(angle)))
        row = np.argmin(np.abs(grid.ky - k * np.sin(angle)))
        assert picture[row, column] > 0.8
    assert picture[110, 110] == pytest.approx(1, abs=1e-6)
    assert np.median(picture) < 0.02


@pytest.mark.parametrize("n", [48, 49])
def test_image_is_normalised_by_the_sum_of_weights(n):
    x, y, w = points(21)
    picture = image(x, y, 7e-13 * w, KGrid(n))
    assert picture.dtype == np.float32
    assert picture.shape == (n, n)
    reference = np.abs(direct_transform(x, y, w, KGrid(n))) / w.sum()
    np.testing.assert_allclose(picture, reference, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: KGrid(1), "at least 2"),
        (lambda: KGrid(8, kx_max=-1.0), "positive"),
        (lambda: KGrid(8, ky_max=math.inf), "positive"),
        (lambda: transform([0.0, 1.0], [0.0], [1.0, 1.0], KGrid(8)), "expected"),
        (lambda: transform([0.0, 1.0], [0.0, 0.0], [1.0], KGrid(8)), r"weights \(1,\)"),
        (lambda: transform([0.0, 1.0], [0.0, 0.0], [[[1.0, 1.0]]], KGrid(8)), r"weights \(1, 1, 2\)"),
        (lambda: transform([0.0, 1.0], [0.0, 0.0], np.zeros((0, 2)), KGrid(8)), r"weights \(0, 2\)"),
        (lambda: transform([], [], [], KGrid(8)), "at least one"),
        (lambda: transform([0.0], [0.0], [1j], KGrid(8)), "complex"),
        (lambda: transform([0.0, np.nan], [0.0, 0.0], [1.0, 1.0], KGrid(8)), "1 of 2 x"),
        (lambda: image([0.0, 1.0], [0.0, 0.0], [1.0, -1.0], KGrid(8)), "positive sum"),
        (lambda: image([0.0, 1.0], [0.0, 0.0], [[1.0, 1.0], [-1.0, -2.0]], KGrid(8)), "-3"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
