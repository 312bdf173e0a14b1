"""Where the AA region of a map lies is found from the map alone, and its disc is the one of the simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stm_models.physics.moire.fourier import KGrid
from stm_models.physics.moire.lattice import build, patch
from stm_models.signal.field import NM, Field
from stm_models.signal.moire_middle import about_aa
from stm_models.signal.real_map import to_ft_images
from stm_models.tasks.inputs import RawMap

LATTICE = build(2, 2.75, 0.0, 0.0)
MOIRE = LATTICE.reciprocal.tolist()
LENGTH = float(np.linalg.norm(LATTICE.vectors[0]))
RADIUS, ENVELOPE = 2 * LENGTH, 0.4
SIGMA = 0.3
OFFSETS = [(0.4, -1.1), (-2.0, 0.3), (1.3, 1.7)]


def density(positions, height):
    """LDOS at atoms (N, 2): of the moiré lattice's symmetry about the origin, AA bright or dark."""
    first, second = LATTICE.reciprocal
    return 1 + height * sum(np.cos(positions @ k) for k in (first, second, first + second))


def painted(shift=(0.0, 0.0), *, room=RADIUS + 1.2 * LENGTH, heights=(0.2,), turned=0.0, noise=0.0, lattice=LATTICE):
    """Raster of Gaussian atoms, AA at ``shift`` (a) from its middle, the lattice turned clockwise by degrees."""
    sites, _ = patch(lattice, 1.6 * room + 2)
    angle = math.radians(-turned)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    places = sites @ turn.T + shift
    pixels = math.ceil(2 * room / 0.16)
    centres = (np.arange(pixels) - (pixels - 1) / 2) * 2 * room / pixels
    along_x, along_y = (np.exp(-((centres[:, None] - one) ** 2) / (2 * SIGMA**2)) for one in places.T)
    stack = np.stack([(along_y * density(sites, height)) @ along_x.T for height in heights])
    stack += noise * stack.std() * np.random.default_rng(0).normal(size=stack.shape)
    size = 2 * room / NM
    return RawMap(stack, (size, size), np.arange(len(heights)) * 0.1, "made.npy", rotate=turned)


def middle(raw, moire=MOIRE):
    found = about_aa(Field.of(raw), raw.values.reshape(len(raw.values), -1), moire, ENVELOPE, RADIUS)
    return None if found is None else np.array(found.middle)


def off(place, shift):
    """Distance to the nearest AA region."""
    steps = np.linalg.solve(LATTICE.vectors.T, place - shift)
    return float(np.linalg.norm((steps - steps.round()) @ LATTICE.vectors))


@pytest.mark.parametrize("shift", OFFSETS)
@pytest.mark.parametrize("height", [0.2, -0.2])
def test_bright_and_dark_regions_are_found(shift, height):
    found = middle(painted(shift, heights=(height,)))
    assert off(found, shift) < 0.02
    assert np.abs(found).max() < LENGTH  # of all, one near the middle


def test_noise_moves_the_place_by_a_fraction_of_an_atom():
    shift = OFFSETS[0]
    assert off(middle(painted(shift, noise=2.0)), shift) < 0.25


def test_the_channel_that_shows_the_lattice_decides():
    shift = OFFSETS[1]
    assert off(middle(painted(shift, heights=(0.0, 0.2), noise=0.5)), shift) < 0.1


def test_a_map_without_the_lattice_keeps_its_middle_and_says_so():
    raw = painted(OFFSETS[0], heights=(0.0,), noise=0.5)
    assert middle(raw) is None
    images, _, notes = to_ft_images(raw, KGrid(32), energies=[0.0], tolerance=1.0, radius=RADIUS, moire=MOIRE)
    plain, _, _ = to_ft_images(raw, KGrid(32), energies=[0.0], tolerance=1.0, radius=RADIUS)
    np.testing.assert_array_equal(images, plain)
    assert any("does not show the model's moiré lattice" in note for note in notes)


def test_a_region_in_the_middle_already_is_left_there():
    assert tuple(middle(painted((0.1, -0.1)))) == (0.0, 0.0)


@pytest.mark.parametrize("turned", [0.0, 25.0])
@pytest.mark.parametrize("shift", OFFSETS)
def test_the_image_is_that_of_a_disc_about_the_region(shift, turned):
    """The picture of the simulation whatever lies in the middle of the scan; it is another one where nobody looks."""
    grid = KGrid(64)

    def picture(raw, moire):
        found, _, notes = to_ft_images(
            raw, grid, energies=[0.0], tolerance=1.0, envelope=ENVELOPE, radius=RADIUS, atom_width=SIGMA, moire=moire
        )
        return found[0], notes

    sites, _ = patch(LATTICE, RADIUS)
    points = RawMap(density(sites, 0.2)[None, None], None, None, "points", sites / NM)
    expected, _ = picture(points, None)
    angle = math.radians(-turned)
    scanned = (
        shift[0] * math.cos(angle) - shift[1] * math.sin(angle), shift[0] * math.sin(angle) + shift[1] * math.cos(angle)
    )  # fmt: skip
    raw = painted(scanned, turned=turned)
    about, notes = picture(raw, MOIRE)
    assert np.abs(about - expected).max() < 0.01
    assert np.abs(picture(raw, None)[0] - expected).max() > 2 * np.abs(about - expected).max()
    assert any("An AA region lies" in note for note in notes)


def test_points_are_moved_too():
    sites, _ = patch(LATTICE, 3.3 * LENGTH)
    raw = RawMap(density(sites, 0.2)[None, None], None, None, "points", sites / NM)
    near = np.hypot(*(sites - OFFSETS[2]).T) < 3.0 * LENGTH
    moved = replace(raw, values=raw.values[..., near], points=raw.points[near])
    box = (moved.points.min(0) + moved.points.max(0)) / 2 * NM
    assert off(middle(moved), -box) < 0.02


def test_a_field_that_holds_no_region_keeps_its_middle():
    # Between AA regions, in a field smaller than the moiré cell.
    raw = painted(tuple(LATTICE.vectors.sum(axis=0) / 3), room=0.3 * LENGTH)
    found = middle(raw)
    assert found is None or tuple(found) == (0.0, 0.0)


def test_a_map_whose_pixels_are_wider_than_the_disc_is_no_division_by_zero():
    raw = RawMap(np.random.default_rng(0).normal(size=(1, 8, 8)), (1000.0, 1000.0), None, "wide.npy")
    assert middle(raw) is None
