"""Parts of images that maps are measured on, and the number that is explained."""

import numpy as np
import pytest

from stm_models.tasks import registry
from stm_models.tasks.impurity.occlusion import CORE, RINGS, occlusion

ROW = {"index": 5.0, "layer_distance": 2.74, "strain": 0.0, "strain_angle": 0.0}
SPEC = {"kx_max": 1.1 * 2 * np.pi, "ky_max": 1.1 * 4 * np.pi / np.sqrt(3)}


@pytest.mark.parametrize("strain", [0.0, 0.02])
def test_hubbard_regions_hold_the_peaks_and_nothing_twice(strain):
    task = registry.get("hubbard")
    row = {**ROW, "strain": strain, "strain_angle": 20.0}
    found = task.regions({"input": SPEC}, row, (129, 129), None)
    centre, bragg = (found[name] for name in task.compared)
    assert not (centre & bragg).any()
    moire, graphene = task.marks({}, row).values()

    def pixels(points):
        limits = np.array([SPEC["kx_max"], SPEC["ky_max"]])
        step = 2 * limits / 128
        x, y = np.round((points + limits) / step).astype(int).T
        inside = (x >= 0) & (x < 129) & (y >= 0) & (y < 129)
        return y[inside], x[inside]

    assert centre[64, 64]
    assert centre[pixels(moire)].all()
    assert bragg[pixels(graphene)].all()
    assert bragg[pixels(graphene + moire[0])].all()
    assert not bragg[pixels(2 * moire)].any()
    assert not (centre | bragg)[0, 0]
    # Seven discs that touch, of half the shortest distance between peaks.
    radius = np.linalg.norm(moire, axis=1).min() / 2
    assert centre.mean() * 4 * SPEC["kx_max"] * SPEC["ky_max"] == pytest.approx(7 * np.pi * radius**2, rel=0.05)
    # k and -k are both in an image.
    np.testing.assert_array_equal(bragg, bragg[::-1, ::-1])


def test_images_of_unknown_structure_have_no_regions():
    assert registry.get("hubbard").regions({"input": SPEC}, {"U": 1.0}, (9, 9), None) == {}
    assert registry.get("hubbard").regions({"input": {"kind": "pictures"}}, ROW, (9, 9), None) == {}
    assert registry.get("impurity").regions({}, {}, (9, 9), None) == {}


def test_impurity_regions_are_those_that_occlusion_takes_away():
    task = registry.get("impurity")
    place = np.array([20.3, 15.6])
    found = task.regions({}, {}, (40, 32), place)
    y, x = np.mgrid[:40, :32]
    distance = np.hypot(y - place[0], x - place[1])
    np.testing.assert_array_equal(found["core"], distance < CORE)
    np.testing.assert_array_equal(found["rings"], (distance >= CORE) & (distance <= RINGS))
    # A detector that adds up the rings: the explained number and the occlusion tell the same.
    weights = np.where(found["rings"], 1.0, 0.0)

    def answer(images):
        seen = np.einsum("bcyx,yx->b", images, weights) / weights.sum()
        return seen[:, None, None, None] * np.exp(-(distance**2) / 4)

    image = np.ones((1, 40, 32), np.float32)
    value = task.explained_value(answer, 0, answer(image[None])[0], np.round(place))
    without = [np.where(found[name], 0, image) for name in ("core", "rings")]
    plain, core, rings = value(np.stack([image, *without]))
    known = occlusion(lambda images: answer(images)[:, 0], image[None], [place[None]], window=64)
    assert core / plain == pytest.approx(known.without_core[0], abs=0.01)
    assert rings / plain == pytest.approx(known.without_rings[0], abs=0.01)


def test_a_score_that_was_divided_by_its_maximum_is_explained_on_a_fixed_scale():
    task = registry.get("impurity")
    peak = np.zeros((1, 21, 21))
    peak[0, 10, 10] = 1

    def relative(images):
        raw = np.exp(images * peak)
        return raw / raw.max(axis=(2, 3), keepdims=True)

    image = 3 * peak
    value = task.explained_value(relative, 0, relative(image[None])[0], np.array([10, 10]))
    np.testing.assert_allclose(value(np.stack([image, 2 * peak, 0 * peak])), np.exp([3, 2, 0]))


def test_numbers_are_explained_as_they_are():
    def answer(images):
        return np.stack([images.sum(axis=(1, 2, 3)), images[:, 0, 0, 0]], axis=1)

    images = np.random.default_rng(0).normal(size=(3, 1, 4, 4))
    value = registry.get("hubbard").explained_value(answer, 1, answer(images[:1])[0], None)
    np.testing.assert_array_equal(value(images), images[:, 0, 0, 0])


def test_a_score_of_exactly_one_is_no_sign_that_it_was_divided():
    task = registry.get("impurity")
    y, x = np.mgrid[:21, :21]
    peak = 30 * np.exp(-((y - 10) ** 2 + (x - 10) ** 2) / 4)[None]

    def sure(images):
        return (1 / (1 + np.exp(4 - images))).astype(np.float32)

    value = task.explained_value(sure, 0, sure(peak[None])[0], np.array([10, 10]))
    assert sure(peak[None]).max() == 1
    np.testing.assert_array_equal(value(np.stack([peak, 0 * peak])), sure(np.stack([peak, 0 * peak]))[:, 0, 10, 10])


def test_pixels_of_pictures_lie_where_regions_take_them_to_be():
    x0, x1, y0, y1 = registry.get("hubbard").axes({**SPEC, "height": 9, "width": 13}).extent
    for (low, high), count, limit in (((x0, x1), 13, SPEC["kx_max"]), ((y0, y1), 9, SPEC["ky_max"])):
        edges = np.linspace(low, high, count + 1)
        np.testing.assert_allclose((edges[1:] + edges[:-1]) / 2, np.linspace(-limit, limit, count), atol=1e-12)
