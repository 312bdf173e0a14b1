"""What every registered network must do: those that answer with numbers, those that answer with a map, and all."""

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.networks import bundle, registry
from stm_models.networks.map_network import SYMMETRIES, turn
from stm_models.networks.model import Model
from stm_models.search import Choice, Range
from stm_models.training.novelty import Novelty

NETWORKS = registry.names()
MAPS = [name for name in NETWORKS if registry.answers_with_map(name)]
SCALARS = [name for name in NETWORKS if name not in MAPS]
SHAPES = [(1, 16, 16), (1, 33, 41), (3, 24, 17)]


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def _images(shape, count=5, seed=0):
    return np.random.default_rng(seed).normal(3.0, 0.5, (count, *shape)).astype(np.float32)


def _outputs(name, count):
    return 1 if name in MAPS else count


def _model(name, shape=(3, 33, 41), outputs=2, seed=1):
    images, outputs = _images(shape, 6, seed), _outputs(name, outputs)
    targets = np.random.default_rng(seed).normal(2.0, 1.5, (6, outputs))
    return Model.for_data(registry.create(name, shape, outputs, seed=seed), images, targets).eval()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", SCALARS)
def test_shapes(name, shape, batch):
    network = registry.create(name, shape, 3).eval()
    x = torch.from_numpy(_images(shape, batch))
    features = network.features(x)
    assert network(x).shape == (batch, 3)
    assert features.ndim == 2
    torch.testing.assert_close(network.head(features), network(x))


def test_gradient_reaches_every_parameter_and_most_pixels(name):
    network = registry.create(name, (3, 33, 41), _outputs(name, 2)).train()
    x = torch.from_numpy(_images((3, 33, 41), 8)).requires_grad_(True)
    network(x).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, key
    assert (x.grad != 0).float().mean() > 0.95


def test_seed_decides_weights_and_nothing_else_does(name):
    before = torch.random.get_rng_state()
    first = registry.create(name, (1, 16, 16), 1, seed=7).state_dict()
    torch.rand(3)
    second = registry.create(name, (1, 16, 16), 1, seed=7).state_dict()
    other = registry.create(name, (1, 16, 16), 1, seed=8).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    torch.random.set_rng_state(before)
    registry.create(name, (1, 16, 16), 1, seed=9)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rows_of_a_batch_do_not_touch_each_other(name):
    model = _model(name)
    x = torch.from_numpy(_images((3, 33, 41), 5, 3))
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


def test_nothing_works_in_place(name):
    network = registry.create(name, (1, 16, 16), 1)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_bundle_gives_equal_outputs(name, tmp_path):
    model = _model(name)
    known, held_out = (
        model.describe(torch.from_numpy(_images((3, 33, 41), count, seed))).detach().numpy()
        for count, seed in ((12, 0), (4, 9))
    )
    novelty, _ = Novelty.fit(known, held_out)
    info = {
        "network": name,
        "options": {},
        "input": {"kind": "test"},
        "task": "hubbard",
        "explained": 0,
        "targets": [{"name": "U", "unit": "eV", "description": ""}],
        "data": {"recipe": "r", "digest": "d"},
    }
    loaded = bundle.load(bundle.save(tmp_path / "bundle", model, novelty, info))
    x = torch.from_numpy(_images((3, 33, 41), 3, 5))
    assert torch.equal(loaded.model(x), model(x))
    assert torch.equal(loaded.distance(x), novelty(model.describe(x)))
    assert loaded.info == info


def test_export_with_a_dynamic_batch(name):
    model = _model(name).requires_grad_(False)
    example = torch.from_numpy(_images((3, 33, 41), 4))
    program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 7):
        x = torch.from_numpy(_images((3, 33, 41), batch, 11))
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCALARS)
def test_clamp_acts_in_physical_units(name):
    shape, targets = (1, 16, 16), np.array([[-1.0], [-3.0]])
    model = Model.for_data(registry.create(name, shape, 1, {"clamp": True}), _images(shape, 2), targets)
    free = Model.for_data(registry.create(name, shape, 1), _images(shape, 2), targets)
    x = torch.from_numpy(_images(shape, 4))
    assert (free.eval()(x) < 0).all()
    assert (model.eval()(x) == 0).all()


def test_every_point_of_the_search_space_is_a_valid_option(name):
    defaults = registry.default_options(name)
    for key, domain in registry.space(name).items():
        assert key in defaults
        values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        assert isinstance(domain, Choice | Range)
        for value in values:
            registry.create(name, (1, 16, 16), 1, {key: value})


def test_unknown_option_is_one_line(name):
    with pytest.raises(InputError, match="dropuot") as caught:
        registry.create(name, (1, 16, 16), 1, {"dropuot": 0.1})
    assert "\n" not in str(caught.value)
    assert "clamp" in str(caught.value)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 9, 31)])
def test_a_map_has_the_images_size_whatever_the_network_was_made_for(name, shape):
    network = registry.create(name, (4, 12, 20), 1).eval()
    x = torch.from_numpy(_images(shape, 2))
    assert network(x).shape == (2, 1, *shape[1:])
    torch.testing.assert_close(network.head(network.trunk(x)), network(x))
    described = Model.blank(network).describe(x)
    assert described.shape[0] == 2
    assert described.shape[2:] == (1, 1)
    assert described.shape == Model.blank(network).describe(x[..., :8]).shape


@pytest.mark.parametrize("name", MAPS)
def test_what_a_map_says_moves_with_the_image(name):
    network = registry.create(name, (4, 40, 40), 1, seed=3).double().eval()
    wide = torch.zeros(1, 4, 64, 64, dtype=torch.float64)
    wide[:, :, 29:35, 30:33] = torch.from_numpy(_images((4, 6, 3), 1)).double()
    here, moved = network(wide), network(wide.roll((2, -3), dims=(2, 3)))
    torch.testing.assert_close(moved[..., 16:48, 16:48], here.roll((2, -3), dims=(2, 3))[..., 16:48, 16:48])
    assert here[..., 16:48, 16:48].std() > 0


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("answer", ["sigmoid", "softmax"])
def test_answers_are_scores_and_eightfold_ones_turn_with_the_image(name, answer):
    options = {"answer": answer, "eightfold": True}
    model = Model.blank(registry.create(name, (4, 12, 20), 1, options, seed=2)).double()
    x = torch.from_numpy(_images((4, 11, 18), 2)).double()
    plain = model.train()(x)
    score = model.eval()(x)
    assert score.shape == (2, 1, 11, 18)
    assert (score >= 0).all()
    assert (score <= 1).all()
    assert not torch.allclose(score, plain)
    for symmetry in SYMMETRIES:
        torch.testing.assert_close(model(turn(x, symmetry)), turn(score, symmetry))
    if answer == "softmax":
        torch.testing.assert_close(score.amax(dim=(1, 2, 3)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", MAPS)
def test_maps_are_neither_several_nor_clamped(name):
    with pytest.raises(InputError, match="2 targets were asked of a network that answers with a map"):
        registry.create(name, (4, 12, 20), 2)
    with pytest.raises(InputError, match="clamp"):
        registry.create(name, (4, 12, 20), 1, {"clamp": True})
