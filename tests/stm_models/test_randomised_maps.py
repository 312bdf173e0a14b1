"""A map that ignores the model is told from one that does not."""

import numpy as np
import pytest
import torch

from stm_models.explain.gradient import slope
from stm_models.explain.randomisation import cascade, randomisation, rank_correlation
from stm_models.explain.torch_maps import torch_maps
from stm_models.networks import registry
from stm_models.networks.bundle import Bundle
from stm_models.networks.model import Model

SHAPE = (1, 16, 16)


def _model(name="conv", **data):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, *SHAPE)).astype(np.float32) * data.get("spread", 1.0)
    network = registry.create(name, SHAPE, 1, data.get("options", {}), seed=1)
    return Model.for_data(network, images, rng.normal(size=(12, 1))).eval()


def gradient(model, images):
    return slope(model, torch.as_tensor(images).to(model.pixel_mean)).numpy()


def edges(model, images):
    """An edge detector: it looks like an explanation."""
    return np.abs(np.gradient(images, axis=2)) + np.abs(np.gradient(images, axis=3))


def test_a_gradient_falls_and_an_edge_detector_does_not():
    model = _model()
    images = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    slopes = randomisation(gradient, model, images, seed=0, stages=4)
    assert slopes["passes"]
    assert abs(slopes["final"]) < 0.3
    assert len(slopes["stages"]) == 5
    assert slopes["stages"][-1]["layer"] == "standardisation"
    same = randomisation(edges, model, images, seed=0, stages=4)
    assert not same["passes"]
    assert [one["correlation"] for one in same["stages"]] == pytest.approx([1.0] * 5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert slopes == randomisation(gradient, model, images, seed=0, stages=4)
    assert slopes != randomisation(gradient, model, images, seed=1, stages=4)


def test_what_the_standardisation_draws_is_told_from_what_the_network_does():
    """Slopes of pixels with a small spread are large whatever the network: only the last stage takes that away."""
    spread = np.logspace(-3, 0, 256).reshape(SHAPE).astype(np.float32)
    found = randomisation(
        gradient, _model("mlp", spread=spread), spread * np.random.default_rng(3).normal(size=(2, *SHAPE)), seed=0
    )
    assert found["network"] > 0.7
    assert abs(found["final"]) < 0.3


def test_every_layer_is_reached_from_the_output_down():
    model = _model()
    seen = []
    for name, changed in cascade(model, seed=0, stages=100):
        now = changed.state_dict()
        weights = [key for key, value in model.state_dict().items() if not torch.equal(value, now[key])]
        seen.append((name, len(weights)))
    assert [name for name, _ in seen][:2] == ["head", "hidden.0"]
    assert [count for _, count in seen] == sorted(count for _, count in seen)
    # A constant, such as the scale of an untrained batch norm, is drawn from no spread.
    assert {name for name, values in model.named_parameters() if values.std() > 0} <= {*weights}


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    b[:10] = 0.5  # ties
    from scipy.stats import spearmanr

    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(a, np.exp(3 * a)) == pytest.approx(1)
    assert rank_correlation(a, np.zeros(50)) == 0


def test_the_place_that_is_explained_stays_while_layers_are_drawn_anew():
    model = Model.blank(registry.create("fieldnet", (2, 16, 17), 1, {}, seed=3)).eval().requires_grad_(False)
    way = torch_maps(Bundle(model, None, {}), 0)["gradient"]
    images = np.random.default_rng(1).normal(size=(2, 2, 16, 17)).astype(np.float32)
    places = np.array([[3, 5], [12, 9]])
    for _, changed in cascade(model, seed=0, stages=2):
        found = way(changed, images, places)
        for row, (y, x) in enumerate(places):
            image = torch.from_numpy(images[row : row + 1]).requires_grad_()
            (own,) = torch.autograd.grad(changed(image)[0, 0, y, x], image)
            np.testing.assert_allclose(found[row], own[0].numpy(), rtol=1e-4, atol=1e-6 * np.abs(found[row]).max())
        assert not np.array_equal(found, way(changed, images))


def test_a_map_that_becomes_constant_is_not_passed():
    images = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
    model = _model()
    found = randomisation(lambda asked, x: x if asked is model else 0 * x, model, images, seed=0, stages=2)
    assert (found["final"], found["constant"], found["passes"]) == (0, 3, False)
