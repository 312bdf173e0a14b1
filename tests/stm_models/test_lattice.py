"""The network that looks at the peaks of the moiré lattice: what it must not see, and what it must."""

import itertools

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.networks.lattice import discriminants
from stm_models.networks.lattice_measure import PeakMeasure
from stm_models.networks.lattice_windows import SHAPES, PeakGrid, between, quadrant, stars, windows
from stm_models.networks.model import Model
from stm_models.physics.moire.lattice import build
from stm_models.tasks.hubbard.structure import lattice_peaks

SIZE, PIXEL, PEAK = 96, (0.145, 0.168), 0.16
VECTORS = build(4).reciprocal
QUIET = 1e-9
OPTIONS = {"vectors": VECTORS.tolist(), "pixel": PIXEL, "peak": PEAK, "hidden": [16, 8]}


def grid(size=SIZE, **changes):
    return PeakGrid(size, size, **{"pixel": PIXEL, "vectors": VECTORS, "peak": PEAK, **changes})


def picture(heights, size=SIZE, shear=(0.0, 0.0), width=1.0):
    """Gaussian peaks of one height per star, the lattice sheared."""
    where = grid(size)
    ky, kx = where.axes
    first, second = shear
    image = np.zeros((size, size))
    for height, group in zip(heights, stars(where), strict=True):
        for x, y in group:
            moved = (x * (1 + first) + y * second, y * (1 - first) + x * second)
            image += height * np.exp(-((kx - moved[0]) ** 2 + (ky - moved[1]) ** 2) / 2 / (width * PEAK) ** 2)
    return torch.tensor(image[None, None], dtype=torch.float32)


def measure(size=SIZE, symmetric=True, shapes=True):
    return PeakMeasure(1, grid(size), symmetric=symmetric, shapes=shapes)


def measured(image, **options):
    """What is measured, by name: of one image."""
    made = measure(image.shape[2], **options)
    with torch.no_grad():
        peaks, noise = (part[0].numpy().astype(np.float64) for part in made(image))
    sizes = {"plain": made.crystal, "own": made.scan, "narrow": made.scan, "squared": made.scan}
    if made.shapes:
        sizes |= dict.fromkeys(("radial", "tangential", "shear", "shear squared"), made.crystal)
    found = dict(zip(sizes, np.split(peaks, np.cumsum(list(sizes.values()))[:-1]), strict=True))
    assert sum(sizes.values()) == made.count == len(peaks)
    assert len(noise) == made.noises
    return {**found, "noise": noise}


def network(size=SIZE, **options):
    return registry.create("lattice", (1, size, size), 1, {**OPTIONS, **options}, seed=3).eval()


def some_heights(seed=0):
    count = len(stars(grid()))
    return np.concatenate([[0.8], np.random.default_rng(seed).uniform(0.05, 0.4, count - 1)])


def test_stars_are_the_orbits_of_the_lattice():
    groups = stars(grid())
    places = np.concatenate(groups)
    limit = (SIZE - 1) / 2 - 2
    steps = np.arange(-60, 61)
    every = (steps[:, None, None] * VECTORS[0] + steps[None, :, None] * VECTORS[1]).reshape(-1, 2)
    inside = every[np.all(np.abs(every / PIXEL) <= limit, axis=1)]
    assert len(places) == len(inside)
    np.testing.assert_allclose(np.sort(np.hypot(*places.T)), np.sort(np.hypot(*inside.T)))
    assert len(groups[0]) == 1
    turn = np.array([[0.5, -np.sqrt(3) / 2], [np.sqrt(3) / 2, 0.5]])
    for group in groups[1:7]:
        assert len(group) in (6, 12)
        for place in group:
            for other in (turn @ place, place * [-1, 1]):
                assert np.min(np.hypot(*(group - other).T)) < 1e-9
    scanned = stars(grid(), "D2")
    assert {len(group) for group in scanned[1:]} == {2, 4}
    for group in scanned:
        np.testing.assert_allclose(np.ptp(np.abs(group), axis=0), 0, atol=1e-9)
    assert sum(map(len, scanned)) == len(places)
    pairs = stars(grid(), "C2")
    assert {len(group) for group in pairs[1:]} == {2}
    assert all(np.allclose(first, -second) for first, second in pairs[1:])


def test_an_unknown_symmetry_is_refused_with_the_choices():
    with pytest.raises(InputError, match="unknown symmetry 'D3': choose from D6, D2, C2"):
        stars(grid(), "D3")


def test_an_unknown_part_of_a_window_is_refused_with_the_choices():
    with pytest.raises(InputError, match="unknown part of a window 'heights': choose from height, radial"):
        windows(grid(), stars(grid()), 1.0, ("heights",))


@pytest.mark.parametrize("size", [96, 95])
def test_a_quarter_of_the_mirrored_image_says_all(size):
    image = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(1))
    weighed = windows(grid(size), stars(grid(size)), 1.2, SHAPES)
    made = measure(size)
    with torch.no_grad():
        found = torch.cat([made.bent(made._mirrored(image, 1)), made.odd(made._mirrored(image, -1))], dim=2)
    wanted = np.einsum("khw,bhw->bk", np.concatenate(weighed), image[:, 0].numpy())
    np.testing.assert_allclose(found[:, 0].numpy(), wanted, atol=1e-5)
    assert quadrant(weighed[0]).shape[1:] == (48, 48)


@pytest.mark.parametrize("symmetric", [True, False])
def test_windows_are_taken_apart_along_the_axes_without_loss(symmetric):
    where = grid()
    weighed = windows(where, stars(where, "D2" if symmetric else "C2"), 0.6)[0]
    made = measure(symmetric=symmetric).narrow
    peaks = len(np.concatenate(stars(where)))
    assert sum(values.numel() for values in (made.lines, made.columns, made.core)) < 0.1 * weighed.size
    assert len(made.lines) * len(made.columns) < 3 * peaks
    image = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    wanted = np.einsum("khw,bhw->bk", weighed, image[:, 0].numpy())
    found = made(measure(symmetric=symmetric)._mirrored(image, 1))[:, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(weighed).sum(axis=(1, 2)).max())


@pytest.mark.parametrize("symmetric", [True, False])
def test_heights_are_those_of_the_peaks(symmetric):
    heights = some_heights()
    each = stars(grid(), "D2" if symmetric else "C2")
    where = [np.flatnonzero([np.min(np.hypot(*(g - group[0]).T)) < 1e-6 for g in stars(grid())])[0] for group in each]
    for _ in range(2):
        found = measured(picture(heights), symmetric=symmetric)
        for name in ("own", "narrow"):
            np.testing.assert_allclose(found[name], (heights / heights[0])[where], rtol=2e-2, atol=3e-4)
        plain = heights if symmetric else heights[where]
        np.testing.assert_allclose(found["plain"], plain, rtol=1e-3, atol=1e-4)
        heights[4] *= 1.5


def test_squares_are_not_biased_by_the_noise_of_a_map():
    """A modulus is: |a + noise| over |noise| is less than a on average, where a is not much larger."""
    heights, rng = np.full(len(stars(grid())), 0.03), np.random.default_rng(0)
    heights[0] = 1.0
    real = picture(heights)[0, 0].numpy()
    ratios = []
    for _ in range(20):
        noise = 0.02 * (rng.standard_normal((SIZE, SIZE)) + 1j * rng.standard_normal((SIZE, SIZE)))
        found = measured(torch.tensor(np.abs(real + noise)[None, None], dtype=torch.float32))
        ratios.append([found["own"][1:].mean() / 0.03, found["squared"][1:].mean() / 0.03**2])
    modulus, squared = np.mean(ratios, axis=0)
    assert modulus < 0.7
    assert squared == pytest.approx(1, abs=0.15)


def test_gain_offset_and_scan_lines_drop_out():
    image = picture(some_heights())
    lines = 0.05 * torch.randn(1, 1, SIZE, 1, generator=torch.Generator().manual_seed(2))
    wanted, gained, shifted = (measured(one) for one in (image, 0.7 * image, image + 0.1 + lines))
    for name in set(wanted) - {"plain", "noise", "squared"}:
        np.testing.assert_allclose(gained[name], wanted[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(shifted[name], wanted[name], rtol=2e-3, atol=3e-4)
    np.testing.assert_allclose(gained["squared"], wanted["squared"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gained["plain"], 0.7 * wanted["plain"], rtol=1e-4, atol=1e-5)
    noisy = measured(image + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(3)))
    assert np.abs(noisy["own"] - wanted["own"]).max() > 1e-2


def test_each_kind_of_noise_is_told_from_the_others():
    image, generator = picture(some_heights()), torch.Generator().manual_seed(4)
    white = 0.02 * torch.randn(image.shape, generator=generator)
    lines = 0.02 * torch.randn(1, 1, SIZE, 1, generator=generator)
    complex_ = 0.02 * torch.randn(2, 1, 1, SIZE, SIZE, generator=generator)
    of_a_map = ((complex_ + complex_.flip(3, 4) * torch.tensor([1.0, -1.0])[:, None, None, None, None]) / 2).square()
    mapped = ((image + of_a_map[0].sqrt()).square() + of_a_map[1]).sqrt()
    middle = 0.8**2
    quiet = measured(image)["noise"]
    pixels, rows = np.exp(measured(image + white)["noise"][:2]) * middle * QUIET
    assert pixels == pytest.approx(2 * 0.02**2, rel=0.1)
    assert rows < 0.1 * pixels
    assert np.exp(measured(image + lines)["noise"][1]) * middle * QUIET == pytest.approx(2 * 0.02**2, rel=0.5)
    assert np.exp(measured(image + lines)["noise"][0]) * middle * QUIET < 1e-6
    of_map = measured(mapped)["noise"]
    np.testing.assert_allclose(of_map[:2], quiet[:2], atol=0.1)
    assert np.all(of_map[2:7] > quiet[2:7] + 1)


def test_between_the_peaks_is_far_from_all_of_them():
    (far, bands), where = between(grid(), (0.5, 2.0)), grid()
    weights = far * bands[:, None]
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1, rtol=1e-5)
    ky, kx = np.broadcast_arrays(*where.axes)
    assert np.abs(kx[weights[0] > 0]).max() < 0.5 <= np.abs(kx[weights[1] > 0]).min()
    assert np.abs(kx[weights[1] > 0]).max() < 2.0 <= np.abs(kx[weights[2] > 0]).min()
    for place in np.concatenate(stars(where)):
        assert not weights[:, np.hypot(kx - place[0], ky - place[1]) < 2 * PEAK].any()


def test_a_shear_changes_heights_little_and_is_told():
    heights = some_heights()
    inner = slice(1, 6)
    plain = measured(picture(heights))
    changed = {size: measured(picture(heights, shear=(size, 0.0))) for size in (-0.02, -0.01, 0.01, 0.02)}
    change = {size: found["plain"][inner] - plain["plain"][inner] for size, found in changed.items()}
    even = {size: (change[size] + change[-size]) / 2 for size in (0.01, 0.02)}
    np.testing.assert_allclose(even[0.02], 4 * even[0.01], rtol=0.1, atol=5e-5)
    assert np.abs(change[0.02]).max() < 0.05 * plain["plain"][inner].max()
    told = {size: (found["shear"] - plain["shear"])[1:3] for size, found in changed.items()}
    np.testing.assert_allclose(told[0.02], -told[-0.02], rtol=0.1, atol=1e-3)
    assert np.all(np.abs(told[0.02]) > 0.01)
    turned = {size: measured(picture(heights, shear=(0.0, size)))["shear squared"][1:3] for size in (0.01, 0.02)}
    np.testing.assert_allclose(turned[0.02], 4 * turned[0.01], rtol=0.15)
    assert np.all(turned[0.02] > 1e-3)
    assert np.all(plain["shear squared"][1:3] < 0.15 * turned[0.02])


def test_it_starts_from_the_components_of_the_simulated_images():
    simulated = np.concatenate([picture(some_heights(seed)).numpy() for seed in range(12)])
    noise = np.random.default_rng(1).standard_normal(simulated.shape).astype(np.float32)
    shown = simulated + 0.003 * noise
    made = network(components=6)
    free = made.components.weight[6:].clone()
    model = Model.for_data(made, shown, np.linspace(0, 6, 12)[:, None], simulated=simulated)
    assert not model.pixel_mean.any()
    assert (model.pixel_scale == 1).all()
    assert model.target_mean.item() == pytest.approx(3.0)
    with torch.no_grad():
        seen = (torch.cat(made.measure(torch.from_numpy(shown)), dim=1) - made.mean) / made.scale
        np.testing.assert_allclose(seen.mean(dim=0), 0, atol=2e-3)
        found = made.components(made._scaled(made.measured(torch.from_numpy(simulated)))[0])[:, :6]
    np.testing.assert_allclose(found.mean(dim=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.T @ found / 12, np.eye(6), atol=1e-2)
    assert torch.equal(made.components.weight[6:], free)  # too few images to tell the noise's covariance


def test_with_images_enough_the_other_components_start_from_what_noise_spares():
    made = network(components=6)
    count = made.measure.count + 5
    simulated = np.concatenate([picture(some_heights(seed)).numpy() for seed in range(count)])
    shown = simulated + 0.003 * np.random.default_rng(1).standard_normal(simulated.shape).astype(np.float32)
    free = made.components.weight[6:].clone()
    made.learn([torch.from_numpy(simulated)], torch.from_numpy(simulated))
    assert torch.equal(made.components.weight[6:], free)  # without noise there is nothing to start from
    made.learn([torch.from_numpy(shown)], torch.from_numpy(simulated))
    with torch.no_grad():
        found = made.components(made._scaled(made.measured(torch.from_numpy(shown)))[0])
        plain = made.components(made._scaled(made.measured(torch.from_numpy(simulated)))[0])
    left = ((found - plain).square().mean(dim=0) / plain.var(dim=0))[[0, 6]]
    assert left[1] < left[0]  # the noise is smaller, for what the states differ by, than along the first principal one


@pytest.mark.parametrize("enough", [True, False])
def test_several_copies_tell_what_noise_spares_where_there_are_images_enough(enough):
    made = network(components=6)
    count = made.measure.count + 5 if enough else made.measure.count - 5
    simulated = np.concatenate([picture(some_heights(seed)).numpy() for seed in range(count)])
    asked = []

    def copies():
        for number in itertools.count():
            asked.append(number)
            noise = np.random.default_rng(number).standard_normal(simulated.shape).astype(np.float32)
            yield simulated + np.float32(0.003) * noise

    free = made.components.weight[6:].clone()
    shown = next(copies())
    asked.clear()
    Model.for_data(made, shown, np.ones((count, 1)), simulated=simulated, further=copies())
    assert torch.equal(made.components.weight[6:], free) is not enough
    assert len(asked) == (7 if enough else 0)  # and no more of them than it takes


def test_discriminants_find_what_the_noise_spares():
    """States differ most along the first axis, where noise hides it, and less along the second, where there is none."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.standard_normal((4000, 5)) * [3.0, 1.5, 0.01, 0.01, 0.01])
    noise = torch.from_numpy(rng.standard_normal((4000, 5)) * [6.0, 0.01, 1.0, 1.0, 1.0])
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((5, 5))))[0]
    found = discriminants(values @ turn, noise @ turn, 2)
    along = (found @ turn.T).abs()
    assert along[0].argmax() == 1
    assert (along[0, 1] / along[0, [0, 2, 3, 4]]).min() > 10
    assert along[1].argmax() == 0
    np.testing.assert_allclose(((values + noise) @ turn @ found.T).var(dim=0), 1, rtol=0.05)
    assert discriminants(values, 0 * noise, 2).shape == (0, 5)
    assert discriminants(values[:4], noise[:4], 2).shape == (0, 5)


def test_the_gate_sees_noise_alone_and_can_be_left_out():
    images = torch.cat([picture(some_heights(seed)) for seed in range(6)])
    with torch.no_grad():
        for gated in (True, False):
            made = network(gated=gated, components=4)
            made.learn([images], images)
            before = made.features(images)[:, 8:]
            made.gate[2].bias -= 100.0  # shut
            after = made.features(images)[:, 8:]
            assert torch.equal(before, after) is not gated
            assert not gated or after.abs().max() < 1e-6


def test_what_it_cannot_look_at_is_refused():
    with pytest.raises(InputError, match="is made for a data set's lattice"):
        registry.create("lattice", (1, 32, 32), 1)
    with pytest.raises(InputError, match="span no lattice"):
        network(vectors=[[1.0, 0.0], [2.0, 0.0]])
    with pytest.raises(InputError, match="take larger images"):
        network(vectors=(0.4 * VECTORS).tolist())
    with pytest.raises(InputError, match="holds no peak beside"):
        network(vectors=(30 * VECTORS).tolist())


def test_the_data_say_where_the_peaks_are():
    spec = {"kx_max": 6.9, "ky_max": 8.0, "width": 64, "height": 64, "envelope": 0.4, "radius": 19.0}
    config = {"index": [5], "layer_distance": [2.74, 2.74]}
    known = lattice_peaks({"input": spec, "config": config})
    np.testing.assert_allclose(known["vectors"], build(5, 2.74).reciprocal)
    assert known["pixel"] == [2 * 6.9 / 63, 2 * 8.0 / 63]
    assert known["peak"] == pytest.approx(1 / (0.4 * 19.0))
    assert known["symmetric"] is True
    top = lattice_peaks({"input": spec, "config": {**config, "bottom_layer": 0.1}})
    assert top["symmetric"] is False  # in-plane half turns swap the layers
    strained = lattice_peaks({"input": spec, "config": {**config, "strain": [0.01, 0.01]}})
    assert strained["symmetric"] is False
    for branch, starts, symmetric in (
        ("broken", ["random"], False), ("collinear", ["af", "stripe"], False), ("collinear", ["pm", "fm", "af"], True),
    ):  # fmt: skip
        states = lattice_peaks({"input": spec, "config": {**config, "branch": branch, "starts": starts}})
        assert states["symmetric"] is symmetric, branch
    assert lattice_peaks({"input": spec, "config": {**config, "index": [4, 5], "replicates": 2}}) == {}
    assert lattice_peaks({"input": {**spec, "radius": None}, "config": config}) == {}
    assert lattice_peaks({"input": spec}) == {}
    given = registry.informed("lattice", {"peak": 0.5}, known)
    assert given["peak"] == 0.5
    assert given["vectors"] == known["vectors"]
    assert registry.informed("mlp", {"pool": 4}, known) == {"pool": 4}
