"""The network that looks at the peaks of the moiré lattice: what it must not see, and what it must."""

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.networks.lattice_windows import PARTS, PeakGrid, quadrant, stars, windows
from stm_models.networks.model import Model
from stm_models.physics.moire.lattice import build
from stm_models.tasks.hubbard.structure import lattice_peaks

SIZE, PIXEL, PEAK = 96, (0.145, 0.168), 0.16
VECTORS = build(4).reciprocal
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
    pairs = stars(grid(), symmetric=False)
    assert {len(group) for group in pairs[1:]} == {2}
    assert all(np.allclose(first, -second) for first, second in pairs[1:])


@pytest.mark.parametrize("size", [96, 95])
def test_a_quarter_of_the_mirrored_image_says_all(size):
    image = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(1))
    weighed = windows(grid(size), stars(grid(size)), 1.2)
    wanted = np.concatenate([weighed[name] for name in PARTS]) @ image.flatten(1).numpy().T
    made = network(size)
    with torch.no_grad():
        found = torch.cat([made._even(image) @ made.even.T, made._odd(image) @ made.odd.T], dim=2)[:, 0]
    np.testing.assert_allclose(found.numpy().T, wanted, atol=1e-5)
    assert quadrant(weighed["height"], size, size).shape[1] == 48**2


def test_heights_are_those_of_the_peaks():
    heights = some_heights()
    made = network(shapes=False)
    with torch.no_grad():
        first = made.weigh(picture(heights))[0]
        heights[4] *= 1.5
        second = made.weigh(picture(heights))[0]
    np.testing.assert_allclose(second, heights[1:] / heights[0], rtol=1e-3, atol=1e-4)
    heights[4] /= 1.5
    np.testing.assert_allclose(first, heights[1:] / heights[0], rtol=1e-3, atol=1e-4)


def test_gain_offset_and_scan_lines_drop_out():
    image, made = picture(some_heights()), network()
    lines = 0.05 * torch.randn(1, 1, SIZE, 1, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = made.weigh(image)
        np.testing.assert_allclose(made.weigh(0.7 * image), wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(made.weigh(image + 0.1 + lines), wanted, rtol=2e-3, atol=1e-4)
        assert (made.weigh(image + 0.05 * torch.randn(image.shape)) - wanted).abs().max() > 1e-2


def test_a_shear_changes_heights_little_and_is_told():
    heights, made = some_heights(), network()
    inner = slice(0, 5)

    def weighed(shear):
        with torch.no_grad():
            return made.weigh(picture(heights, shear=shear))[0].numpy().astype(np.float64)

    plain = weighed((0.0, 0.0))
    changes = {size: weighed((size, 0.0)) - plain for size in (-0.02, -0.01, 0.01, 0.02)}
    even = {size: (changes[size] + changes[-size])[inner] / 2 for size in (0.01, 0.02)}
    np.testing.assert_allclose(even[0.02], 4 * even[0.01], rtol=0.1, atol=5e-5)
    assert np.abs(changes[0.02][inner]).max() < 0.05 * plain[inner].max()
    first = 3 * made.stars  # of the shear, after the middle's
    shear, square = slice(first, first + 2), slice(first + made.stars, first + made.stars + 2)
    np.testing.assert_allclose(changes[0.02][shear], -changes[-0.02][shear], rtol=0.1, atol=1e-3)
    assert np.all(np.abs(changes[0.02][shear]) > 0.01)
    turned = {size: weighed((0.0, size))[square] for size in (0.01, 0.02)}
    np.testing.assert_allclose(turned[0.02], 4 * turned[0.01], rtol=0.15)
    assert np.all(turned[0.02] > 1e-3)
    assert np.all(plain[square] < 0.15 * turned[0.02])


def test_statistics_come_from_the_training_images():
    images = np.concatenate([picture(some_heights(seed)).numpy() for seed in range(12)])
    model = Model.for_data(network(), images, np.linspace(0, 6, 12)[:, None])
    assert not model.pixel_mean.any()
    assert (model.pixel_scale == 1).all()
    assert model.target_mean.item() == pytest.approx(3.0)
    with torch.no_grad():
        seen = (model.network.weigh(torch.from_numpy(images)) - model.network.mean) / model.network.scale
    np.testing.assert_allclose(seen.mean(dim=0), 0, atol=1e-3)
    assert float(seen.std(dim=0, unbiased=False).median()) == pytest.approx(1, abs=1e-3)


def test_what_it_cannot_look_at_is_refused():
    with pytest.raises(InputError, match="has to know the lattice"):
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
    strained = lattice_peaks({"input": spec, "config": {**config, "strain": [0.01, 0.01]}})
    assert strained["symmetric"] is False
    assert lattice_peaks({"input": spec, "config": {**config, "index": [4, 5], "replicates": 2}}) == {}
    assert lattice_peaks({"input": {**spec, "radius": None}, "config": config}) == {}
    assert lattice_peaks({"input": spec}) == {}
    given = registry.informed("lattice", {"peak": 0.5}, known)
    assert given["peak"] == 0.5
    assert given["vectors"] == known["vectors"]
    assert registry.informed("mlp", {"pool": 4}, known) == {"pool": 4}
