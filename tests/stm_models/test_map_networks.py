"""What is special about the networks that answer with a map; the rest is in the networks' contract."""

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.networks import bundle, registry
from stm_models.networks.map_network import SYMMETRIES, turn, turn_back
from stm_models.networks.model import Model
from stm_models.training.novelty import Novelty
from stm_models.training.predict import predict


def _attention(**options):
    return registry.create("voltage_attention", (8, 12, 12), 1, options, seed=5).double().eval()


def _maps(count, height=9, width=11, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, count, height, width)))


def _slow(network, x, inner, scaled):
    """The paper's Eq. 1, summed one pair of voltages at a time; the mean over i."""
    result = []
    for image in x:
        found = [network.body(one[None, None]) for one in image]
        query, key, value = ([part(one)[0] for one in found] for part in (network.query, network.key, network.value))
        total = torch.zeros_like(value[0])
        axes = (0, 1, 2) if inner == "global" else (0,)
        size = value[0].numel() if inner == "global" else len(value[0])
        scale = size**-0.5 if scaled else 1.0
        for q in query:
            weights = [torch.exp(scale * (q * k).sum(dim=axes)) for k in key]
            total += sum(w * v for w, v in zip(weights, value, strict=True)) / sum(weights) / len(query)
        result.append(network.head(total[None]))
    return torch.cat(result)


@pytest.mark.parametrize("inner", ["global", "pixelwise"])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_attention_is_the_slow_sum_for_any_number_of_voltages(inner, scaled, count):
    network = _attention(inner=inner, scaled=scaled, width=5, depth=3)
    x = _maps(count)
    with torch.no_grad():
        found = network(x)
        assert found.shape == (2, 1, 9, 11)
        torch.testing.assert_close(found, _slow(network, x, inner, scaled))


def test_attention_weighs_voltages_and_knows_no_order():
    network = _attention(scaled=False)
    x = 3 * _maps(8)
    with torch.no_grad():
        torch.testing.assert_close(network(x.flip(1)), network(x))
        torch.testing.assert_close(network(x.repeat(1, 2, 1, 1)), network(x))  # the mean over i: not twice as large
        plain = network.head(network.value(network.body(x.reshape(-1, 1, 9, 11))).reshape(2, 8, -1, 9, 11).mean(dim=1))
        assert (network(x) - plain).abs().max() > 1e-3


def test_fieldnet_has_the_papers_size_and_sees_twelve_pixels_far():
    network = registry.create("fieldnet", (8, 40, 40), 1, seed=1).double().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 52_705
    x = torch.randn(1, 8, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (slope,) = torch.autograd.grad(network(x)[0, 0, 20, 20], x)
    rows = slope.abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (20 - 12, 20 + 12)
    assert 0.001 < torch.sigmoid(network(0 * x)).mean() < 0.1  # impurities are rare before any training
    with pytest.raises(InputError, match="dilations"):
        registry.create("fieldnet", (8, 40, 40), 1, {"dilations": "1-x"})


def test_a_turn_is_undone():
    x = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    turned = [turn(x, symmetry) for symmetry in SYMMETRIES]
    assert len({tuple(one.flatten().tolist()) for one in turned}) == 8
    for symmetry, one in zip(SYMMETRIES, turned, strict=True):
        assert torch.equal(turn_back(one, symmetry), x)


@pytest.mark.parametrize("name", ["fieldnet", "voltage_attention"])
def test_a_model_of_maps_leaves_units_alone_and_keeps_its_distance(name, tmp_path):
    images = np.random.default_rng(0).normal(5, 3, (14, 4, 16, 16)).astype(np.float32)
    targets = np.zeros((14, 2, 16, 16), np.float32)
    model = Model.for_data(registry.create(name, (4, 16, 16), 1, {"answer": "sigmoid"}), images, targets).eval()
    x = torch.from_numpy(images)
    assert torch.equal(model.standardise(x), x)
    assert torch.equal(model.scale_targets(x), x)
    torch.testing.assert_close(model(x), torch.sigmoid(model.network(x)))
    np.testing.assert_allclose(predict(model, images), model(x).detach().numpy(), atol=1e-6)
    features = model.features(x).detach().numpy()
    novelty, quantiles = Novelty.fit(features[:8]).calibrated({"clean": (features[8:], np.arange(6))})
    info = {
        "network": name, "options": {"answer": "sigmoid"}, "input": {}, "targets": [], "task": "t", "data": {},
        "explained": 0,
    }  # fmt: skip
    loaded = bundle.load(bundle.save(tmp_path / "b", model, novelty, info))
    near, far = loaded.answers(x[8:]), loaded.answers(20 * x)
    assert near["distance"].median() == pytest.approx(quantiles["0.5"], rel=0.3)
    assert far["distance"].min() > near["distance"].max()
    assert far["novelty"].max() < near["novelty"].min()
    wide = torch.randn(1, 4, 21, 30, generator=torch.Generator().manual_seed(0))
    assert loaded.model(wide).shape == (1, 1, 21, 30)
    assert list(loaded.answers(wide)) == ["prediction", "distance", "novelty"]


def test_a_bundle_without_a_novelty_answers_with_the_prediction_alone(tmp_path):
    model = Model.blank(registry.create("fieldnet", (4, 16, 16), 1))
    info = {"network": "fieldnet", "options": {}, "input": {}, "targets": [], "task": "t", "data": {}, "explained": 0}
    loaded = bundle.load(bundle.save(tmp_path / "b", model, None, info))
    assert list(loaded.answers(torch.zeros(1, 4, 16, 16))) == ["prediction"]


def test_without_standardising_numbers_pass_as_they_are():
    images = np.random.default_rng(0).normal(5, 3, (6, 1, 8, 8)).astype(np.float32)
    model = Model.for_data(registry.create("mlp", (1, 8, 8), 1), images, np.ones((6, 1)), standardise=False).eval()
    x, y = torch.from_numpy(images), torch.full((6, 1), 7.0)
    assert torch.equal(model(x), model.network(x))
    assert torch.equal(model.scale_targets(y), y)
