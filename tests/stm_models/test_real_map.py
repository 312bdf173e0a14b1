"""A raster of a known lattice must give the image that the simulation gives for its points."""

import math
from dataclasses import replace

import numpy as np
import pytest

from deploy.serving.page.upload import fields_of
from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.signal.real_map import at_energies, to_ft_image, to_ft_images
from stm_models.tasks.inputs import RawMap

NM = 0.246
HALF = 12.0  # half the field, in a
PERIOD = 2.5
SIGMA = 0.12


def lattice():
    """Triangular lattice, every second column brighter, nothing near the disc's edge."""
    m, q = (v.ravel() for v in np.meshgrid(np.arange(-9, 10), np.arange(-9, 10)))
    x, y = PERIOD * (m + q / 2), PERIOD * q * math.sqrt(3) / 2
    keep = np.hypot(x, y) < 0.85 * HALF
    return x[keep], y[keep], 1 + 0.3 * np.cos(np.pi * (m + q / 2))[keep]


def raster(rows, columns, height=2 * HALF, width=2 * HALF):
    x, y, amplitude = lattice()
    cy = (np.arange(rows) - (rows - 1) / 2) * height / rows
    cx = (np.arange(columns) - (columns - 1) / 2) * width / columns
    along_y = np.exp(-((cy[:, None] - y) ** 2) / (2 * SIGMA**2)) * amplitude
    values = along_y @ np.exp(-((cx - x[:, None]) ** 2) / (2 * SIGMA**2))
    return RawMap(values[None], (height * NM, width * NM), None, "made.npy")


def expected_image(grid, envelope=0.4):
    """The image of the points, exactly: Gaussian times envelope is a Gaussian, nearer to the middle."""
    x, y, amplitude = lattice()
    width = envelope * HALF
    shrink = width**2 / (width**2 + SIGMA**2)
    weights = amplitude * np.exp(-(x**2 + y**2) / (2 * (width**2 + SIGMA**2)))
    form_factor = np.exp(-(grid.kx**2 + grid.ky[:, None] ** 2) * SIGMA**2 * shrink / 2)
    return image(shrink * x, shrink * y, weights, grid) * form_factor


@pytest.mark.parametrize("n", [64, 65])
def test_a_fine_raster_gives_the_image_of_its_points(n):
    grid = KGrid(n)
    picture, known, notes = to_ft_image(raster(240, 240), grid)
    assert picture.shape == (n, n)
    assert picture.dtype == np.float32
    assert known.all()
    np.testing.assert_allclose(picture, expected_image(grid), atol=1e-4)
    assert len(notes) == 1
    assert "0.246 Å x 0.246 Å" in notes[0]


def test_atoms_of_a_known_width_give_the_image_of_points():
    grid = KGrid(64)
    x, y, amplitude = lattice()
    points = image(x, y, amplitude * np.exp(-(x**2 + y**2) / (2 * (0.4 * HALF) ** 2)), grid)
    picture, known, notes = to_ft_image(raster(240, 240), grid, atom_width=SIGMA)
    assert known.all()
    np.testing.assert_allclose(picture, points, atol=3e-4)
    assert np.abs(to_ft_image(raster(240, 240), grid)[0] - points).max() > 0.2
    assert "0.0295 nm" in notes[-1]
    turned, _, _ = to_ft_image(replace(raster(240, 240), rotate=180.0), grid, atom_width=SIGMA)
    np.testing.assert_allclose(turned, picture, atol=1e-5)  # |F(-k)| = |F(k)|, by the transform of scattered points


def test_a_lattice_that_goes_on_beyond_the_disc_gives_the_image_of_the_points_within():
    radius, period, width = 9.0, 1.0, 0.2
    m, q = (v.ravel() for v in np.meshgrid(np.arange(-20, 21), np.arange(-20, 21)))
    x, y = period * (m + q / 2), period * q * math.sqrt(3) / 2
    near = np.hypot(x, y) < HALF
    x, y = x[near], y[near]
    grid, cy = KGrid(32), (np.arange(300) - 149.5) * 2 * 10 / 300
    alike = [np.exp(-((cy[:, None] - places) ** 2) / (2 * width**2)) for places in (y, x)]
    raw = RawMap((alike[0] @ alike[1].T)[None], (20 * NM, 20 * NM), None, "made.npy")
    inside = np.hypot(x, y) < radius
    weights = np.exp(-(x**2 + y**2) / (2 * (0.4 * radius) ** 2))
    points = image(x[inside], y[inside], weights[inside], grid)
    picture, _, _ = to_ft_image(raw, grid, radius=radius, atom_width=width)
    np.testing.assert_allclose(picture, points, atol=4e-3)
    assert np.abs(to_ft_image(raw, grid, radius=radius)[0] - points).max() > 0.2


def test_points_have_no_width():
    places = NM * np.random.default_rng(0).uniform(-HALF, HALF, (100, 2))
    raw = RawMap(np.random.default_rng(1).random((1, 1, 100)), None, None, "made.dat", places)
    grid = KGrid(32)
    np.testing.assert_array_equal(to_ft_image(raw, grid, atom_width=0.2)[0], to_ft_image(raw, grid)[0])


def test_the_centre_is_one_because_the_mean_stays_in():
    picture, _, _ = to_ft_image(raster(240, 240), KGrid(65))
    assert picture[32, 32] == pytest.approx(1, abs=1e-5)


def test_peaks_lie_at_the_reciprocal_vectors():
    grid = KGrid(129)
    picture, _, _ = to_ft_image(raster(240, 240), grid)
    length = 4 * np.pi / (math.sqrt(3) * PERIOD)
    for angle in np.radians([30, 90, 150]):
        column = np.argmin(np.abs(grid.kx - length * np.cos(angle)))
        row = np.argmin(np.abs(grid.ky - length * np.sin(angle)))
        assert picture[row, column] > 0.9
        assert picture[row, column] > 10 * np.median(picture)


def test_pixels_of_two_sizes_and_a_wide_field():
    grid = KGrid(65)
    picture, known, notes = to_ft_image(raster(240, 480, width=4 * HALF), grid)
    np.testing.assert_allclose(picture, expected_image(grid), atol=1e-4)
    picture, known, notes = to_ft_image(raster(300, 200), grid)
    assert known.all()
    np.testing.assert_allclose(picture, expected_image(grid), atol=1e-4)
    assert "0.295 Å x 0.197 Å" in notes[0]


@pytest.mark.parametrize(("rows", "columns"), [(20, 20), (20, 40), (40, 20)])
def test_beyond_nyquist_nothing_is_known(rows, columns):
    grid = KGrid(64)
    picture, known, notes = to_ft_image(raster(rows, columns), grid)
    limit_y, limit_x = math.pi * rows / (2 * HALF), math.pi * columns / (2 * HALF)
    expected = (np.abs(grid.ky) <= limit_y)[:, None] & (np.abs(grid.kx) <= limit_x)
    np.testing.assert_array_equal(known, expected)
    assert 0 < known.mean() < 1
    assert np.all(picture[~known] == 0)
    assert np.all(picture[known] > 0)
    assert f"{1 - known.mean():.1%}" in notes[1]
    assert "1.12 Å along x" in notes[1]


def test_scattered_points_are_the_simulation_itself():
    grid = KGrid(64)
    m, q = (v.ravel() for v in np.meshgrid(np.arange(-20, 21), np.arange(-20, 21)))
    x, y = m + q / 2, q * math.sqrt(3) / 2
    keep = np.hypot(x, y) <= 19
    x, y = x[keep], y[keep]
    ldos = 2 + np.cos(x) * np.cos(y)
    reach = np.hypot(x, y).max()
    expected = image(x, y, ldos * np.exp(-(x**2 + y**2) / (2 * (0.4 * reach) ** 2)), grid)
    points = np.stack([x + 7, y - 3], axis=1) * NM
    picture, known, _ = to_ft_image(RawMap(ldos[None, None], None, None, "made.dat", points), grid)
    assert known.all()
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def test_a_square_of_points_loses_its_corners():
    grid = KGrid(64)
    x, y = (v.ravel() for v in np.meshgrid(np.arange(-20.0, 21), np.arange(-20.0, 21)))
    ldos = 2 + np.cos(0.3 * x)
    inside = np.hypot(x, y) <= 20
    raw = RawMap(ldos[None, None], None, None, "all.dat", np.stack([x, y], axis=1) * NM)
    cut = RawMap(ldos[inside][None, None], None, None, "disc.dat", np.stack([x, y], axis=1)[inside] * NM)
    np.testing.assert_allclose(to_ft_image(raw, grid)[0], to_ft_image(cut, grid)[0], atol=1e-6)


def test_scale_does_not_matter_and_the_envelope_does():
    raw, grid = raster(100, 100), KGrid(65)
    picture = to_ft_image(raw, grid)[0]
    small = RawMap(1e-12 * raw.values, raw.size_nm, None, "made.npy")
    np.testing.assert_allclose(to_ft_image(small, grid)[0], picture, atol=1e-6)
    narrow = to_ft_image(raster(240, 240), grid, envelope=0.2)[0]
    np.testing.assert_allclose(narrow, expected_image(grid, 0.2), atol=1e-4)
    assert np.abs(narrow - picture).max() > 0.1


def test_negative_values_are_mentioned():
    raw = raster(100, 100)
    shifted = RawMap(raw.values - 1e-3, raw.size_nm, None, "made.npy")
    assert "negative" in to_ft_image(shifted, KGrid(16))[2][-1]


def test_a_field_too_wide_for_the_pixels_is_mentioned():
    raw = raster(100, 100)
    assert not any("wide" in note for note in to_ft_image(raw, KGrid(64))[2])
    large = RawMap(raw.values, (50.0, 50.0), None, "made.npy")
    assert any("crop" in note for note in to_ft_image(large, KGrid(64))[2])
    notes = to_ft_image(large, KGrid(64), radius=60.0)[2]  # of the model's field, which the field is cropped to
    assert any("cropped" in note for note in notes)
    assert not any("wide" in note for note in notes)


def changed(values, **more):
    fields = {"values": values, "size_nm": (5.0, 5.0), "bias": None, "source": "x.npy"} | more
    return RawMap(**fields)


GOOD = np.random.default_rng(0).random((1, 16, 16))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (changed(np.repeat(GOOD, 3, axis=0)), "3 channels"),
        (changed(GOOD, size_nm=None), "--size-nm"),
        (changed(GOOD, size_nm=(5.0, -1.0)), "positive"),
        (changed(GOOD[:, :7]), "8x8"),
        (changed(np.ones((1, 16, 16))), "all values equal 1"),
        (changed(np.where(GOOD > 0.9, np.nan, GOOD)), "NaN or infinite"),
        (changed(np.where(GOOD > 0.9, np.inf, GOOD)), "NaN or infinite"),
        (changed(-GOOD), "positive"),
        (changed(GOOD - GOOD.mean() - 0.2), "remove its offset"),
        (changed(GOOD.reshape(1, 1, -1), points=np.ones((256, 2))), "one line"),
        (changed(GOOD.reshape(1, 1, -1), points=np.ones((255, 2))), "positions"),
        (changed(GOOD.reshape(1, 1, -1)[..., :60], points=np.ones((60, 2))), "60 points"),
    ],
)
def test_mistakes_are_named(raw, words):
    with pytest.raises(InputError, match=words) as caught:
        to_ft_image(raw, KGrid(16))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "pixels", "width", "words"),
    [
        (5000.0, 16, 0.0, ["pixels are 312 x 312 nm", "radius of 4.69 nm", "4 pixels across", "--size-nm"]),
        (40.0, 16, 0.2, ["pixels are 2.5 x 2.5 nm", "--size-nm"]),
        (20e-9, 16, 0.2, ["field is 2e-08 x 2e-08 nm", "in nm", "--size-nm"]),
        (10.0, 128, 2.0, ["atoms of 0.492 nm", "--atom-width in nm"]),
    ],
)
def test_units_that_are_not_nm_are_told_by_the_option_that_mends_them(size, pixels, width, words):
    values = np.random.default_rng(0).random((1, pixels, pixels))
    with pytest.raises(InputError) as caught:
        to_ft_image(changed(values, size_nm=(size, size)), KGrid(16), radius=4.69 / NM, atom_width=width)
    assert all(word in str(caught.value) for word in words)
    assert fields_of(str(caught.value)) == ["atom_width" if "atoms" in words[0] else "size_nm"]


def test_points_closer_than_a_lattice_constant_are_in_another_unit():
    points = np.random.default_rng(1).uniform(-1e-8, 1e-8, (256, 2))
    with pytest.raises(InputError, match=r"less than two lattice constants: give positions in lattice"):
        to_ft_image(changed(GOOD.reshape(1, 1, -1), points=points), KGrid(16))


@pytest.mark.parametrize("envelope", [0.0, -0.4, math.nan, math.inf])
def test_envelope_must_be_positive(envelope):
    with pytest.raises(InputError, match="envelope"):
        to_ft_image(raster(16, 16), KGrid(16), envelope=envelope)


def stack(*biases):
    """One raster per bias, each of another amplitude of its modulation."""
    base = raster(60, 60)
    values = np.concatenate([base.values * (1 + number) + number for number in range(len(biases))])
    return replace(base, values=values, bias=np.array(biases, float), source="stack.npz")


def test_channels_are_picked_by_bias_in_the_order_of_the_energies():
    raw = stack(0.1, -0.02, 0.0, -0.1)
    found, (note,) = at_energies(raw, [-0.1, 0.0, 0.1], 0.01)
    assert found.bias.tolist() == [-0.1, 0.0, 0.1]
    assert np.array_equal(found.values, raw.values[[3, 2, 0]])
    assert "-0.1, 0, 0.1 V" in note


def test_each_channel_is_the_transform_of_its_own_map():
    raw, grid = stack(0.1, 0.0), KGrid(33)
    images, known, notes = to_ft_images(raw, grid, energies=[0.0, 0.1], tolerance=0.01)
    assert images.shape == (2, 33, 33)
    for image_, number in zip(images, (1, 0), strict=True):
        alone = replace(raw, values=raw.values[number : number + 1], bias=None)
        expected, expected_known, _ = to_ft_image(alone, grid)
        np.testing.assert_array_equal(image_, expected)
        np.testing.assert_array_equal(known, expected_known)
    assert np.abs(images[0] - images[1]).max() > 0.01
    assert len(notes) == len(set(notes))  # what holds for all channels is said once
    assert "Maps at 0, 0.1 V" in notes[0]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (replace(stack(0.0, 0.1), bias=None), ["does not state its biases", "2 energies, 0, 0.1 eV", "npz"]),
        (stack(0.0, 0.2), ["no map within 0.01 V of 0.1 V", "its 2 from 0 to 0.2 V"]),
        (stack(0.0), ["of 0.1 V", "without choosing one"]),
        (stack(0.0, 0.1 + 0.0101), ["of 0.1 V"]),
    ],
)
def test_a_stack_without_the_models_energies_is_refused(raw, words):
    with pytest.raises(InputError) as caught:
        at_energies(raw, [0.0, 0.1], 0.01)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_map_is_taken_as_it_is_and_a_far_bias_is_mentioned():
    for bias, count in ((None, 0), ([0.005], 0), ([-0.3], 1)):
        raw = replace(raster(20, 20), bias=None if bias is None else np.array(bias))
        found, notes = at_energies(raw, [0.0], 0.01)
        assert found is raw
        assert len(notes) == count
    assert "-0.3 V" in notes[0]
    with pytest.raises(InputError, match="2 channels; choose one with --bias"):
        to_ft_images(stack(0.0, 0.1), KGrid(16), energies=[0.0], tolerance=0.01)


@pytest.mark.parametrize("degrees", [1.0, -17.0, 90.0])
def test_a_map_that_was_scanned_turned_is_turned_back(degrees):
    """The lattice is turned clockwise in the scan's frame; the image must be that of the lattice as it lay."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, amplitude = lattice()
    axis = (np.arange(240) - 119.5) * 2 * HALF / 240
    values = np.zeros((240, 240))
    for a, b, height in zip(cos * x + sin * y, cos * y - sin * x, amplitude, strict=True):
        values += height * np.outer(
            np.exp(-((axis - b) ** 2) / (2 * SIGMA**2)), np.exp(-((axis - a) ** 2) / (2 * SIGMA**2))
        )
    grid = KGrid(64)
    raw = RawMap(values[None], (2 * HALF * NM, 2 * HALF * NM), None, "turned.npy")
    picture, _, _ = to_ft_image(replace(raw, rotate=degrees), grid)
    np.testing.assert_allclose(picture, expected_image(grid), atol=1e-4)
    away = (np.hypot(grid.kx, grid.ky[:, None]) > 1) & (expected_image(grid) > 0.3)
    assert np.abs(to_ft_image(raw, grid)[0] - expected_image(grid))[away].max() > 0.05


def test_what_is_known_turns_with_the_map():
    """Pixels three times as high as wide: only |k| below their Nyquist vector along their height, now along kx."""
    grid = KGrid(65)
    raw = raster(30, 90)
    _, straight, _ = to_ft_image(raw, grid)
    _, turned, _ = to_ft_image(replace(raw, rotate=90.0), grid)
    limit = math.pi / (2 * HALF / 30)
    np.testing.assert_array_equal(straight, np.broadcast_to(np.abs(grid.ky)[:, None] <= limit, (65, 65)))
    np.testing.assert_array_equal(turned, np.broadcast_to(np.abs(grid.kx) <= limit, (65, 65)))


def test_points_turn_too():
    grid = KGrid(33)
    half = np.random.default_rng(0).normal(0, 3, (50, 2))
    (x, y), amplitude = np.concatenate([half, -half]).T, np.random.default_rng(1).random(100)
    points = np.stack([x, y], axis=1) * NM
    quarter = np.stack([y, -x], axis=1) * NM  # clockwise
    raw = RawMap(amplitude[None, None], None, None, "points.txt", points=points)
    found, _, _ = to_ft_image(replace(raw, points=quarter, rotate=90.0), grid)
    np.testing.assert_allclose(found, to_ft_image(raw, grid)[0], atol=1e-5)
