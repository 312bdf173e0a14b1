"""What every registered network must do: those that answer with numbers, those that answer with a map, and all."""

import numpy as np
import pytest
import torch

from deploy.exporting import write as writing
from deploy.exporting.config import ExportConfig
from stm_models import plugins
from stm_models.errors import InputError
from stm_models.explain.references import references
from stm_models.networks import bundle, registry
from stm_models.networks.map_network import SYMMETRIES, MapNetwork, turn
from stm_models.networks.model import Model
from stm_models.search import Choice, Range
from stm_models.training.appearance import Appearance
from stm_models.training.novelty import Novelty
from stm_models.training.predict import features
from support import network_cases as cases

create, OPTIONS = cases.create, cases.OPTIONS

OWN = ["conv", "fc", "fieldnet", "lattice", "linear", "mlp", "voltage_attention"]
QUICK = [
    *OWN, "resnet18", "timm:mobilenetv3_small_050", "timm:test_convnext", "timm:test_efficientnet",
    "timm:test_resnet", "timm:test_vit",
]  # fmt: skip
LARGE = [
    "resnet34", "resnet50", "resnet101", "timm:convnext_atto", "timm:efficientnet_b0", "timm:resnet18d.ra2_in1k",
    "timm:vit_tiny_patch16_224",
]  # fmt: skip
NETWORKS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
MAPS = [name for name in QUICK if cases.answers_with_map(name)]
SCALARS = [name for name in QUICK if name not in MAPS]
# Whose patches or strides must fill the image for every pixel to count.
PATCHES = {"timm:test_vit": 16, "timm:vit_tiny_patch16_224": 16, "timm:test_convnext": 32, "timm:convnext_atto": 32}
SHAPES = [(1, 16, 16), (1, 33, 41), (3, 24, 17)]


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def _fitting(name, shape):
    """``shape``, or the next larger one that whole patches fill."""
    patch = PATCHES.get(name, 1)
    return (shape[0], *(-(-size // patch) * patch for size in shape[1:]))


def _images(shape, count=5, seed=0):
    return np.random.default_rng(seed).normal(3.0, 0.5, (count, *shape)).astype(np.float32)


def _outputs(name, count):
    return 1 if name in MAPS else count


def _anywhere(network, seed=5):
    """Move weights and running statistics away from where initialisation puts many of them: to zero and one."""
    cases.nudge(network, seed)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.copy_(torch.linspace(-0.2, 0.5, layer.num_features))
                layer.running_var.copy_(torch.linspace(0.3, 2.0, layer.num_features))
    return network


def _model(name, shape=(3, 33, 41), outputs=2, seed=1):
    shape = _fitting(name, shape)
    images, outputs = _images(shape, 6, seed), _outputs(name, outputs)
    targets = np.random.default_rng(seed).normal(2.0, 1.5, (6, outputs))
    return Model.for_data(_anywhere(create(name, shape, outputs, seed=seed)), images, targets).eval()


def _fresh(model, count, seed):
    return torch.from_numpy(_images(tuple(model.pixel_mean.shape), count, seed))


def _info(name):
    return {
        "network": name,
        "options": OPTIONS.get(name, {}),
        "input": {"kind": "test"},
        "task": "hubbard",
        "explained": 0,
        "targets": [{"name": "U", "unit": "eV", "description": ""}],
        "data": {"recipe": "r", "digest": "d"},
    }


def _novelty(model):
    known, held_out = (_fresh(model, count, count).numpy() for count in (12, 4))
    appearance = None if isinstance(model.network, MapNetwork) else Appearance.fit(known)
    known, held_out = (features(model, part, appearance=appearance) for part in (known, held_out))
    return Novelty.fit(known, appearance).calibrated({"clean": (held_out, np.arange(4))})


def test_every_family_is_here():
    assert set(registry.names()) - plugins.names(plugins.NETWORKS) <= {*QUICK, *LARGE}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in MAPS])
def test_shapes(name, shape):
    shape = _fitting(name, shape)
    network = create(name, shape, 3).eval()
    for batch in (1, 4):
        x = torch.from_numpy(_images(shape, batch))
        features = network.features(x)
        assert network(x).shape == (batch, 3)
        assert features.ndim == 2
        torch.testing.assert_close(network.head(features), network(x))
        torch.testing.assert_close(network.from_measured(network.measured(x)), network(x))


def test_gradient_reaches_every_parameter_and_most_pixels(name):
    shape = _fitting(name, (3, 33, 41))
    network = _anywhere(create(name, shape, _outputs(name, 2))).train()
    x = torch.from_numpy(_images(shape, 8)).requires_grad_(True)
    network(x).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, key
    # Far from all peaks `lattice` sees nothing.
    assert (x.grad != 0).float().mean() > (0.7 if name == "lattice" else 0.95)


def test_seed_decides_weights_and_nothing_else_does(name):
    shape = _fitting(name, (1, 16, 16))
    before = torch.random.get_rng_state()
    first = create(name, shape, 1, seed=7).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    second = create(name, shape, 1, seed=7).state_dict()
    other = create(name, shape, 1, seed=8).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_rows_of_a_batch_do_not_touch_each_other(name):
    model = _model(name)
    x = _fresh(model, 5, 3)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


def test_nothing_works_in_place(name):
    network = create(name, _fitting(name, (1, 16, 16)), 1)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_bundle_gives_equal_outputs(name, tmp_path):
    model = _model(name)
    novelty, _ = _novelty(model)
    loaded = bundle.load(bundle.save(tmp_path / "bundle", model, novelty, _info(name)))
    x = _fresh(model, 3, 5)
    assert torch.equal(loaded.model(x), model(x))
    assert torch.equal(loaded.answers(x)["distance"], novelty(novelty.seen(model.features(x), x)))
    assert loaded.info == _info(name)


def test_export_with_a_dynamic_batch(name):
    model = _model(name).requires_grad_(False)
    program = torch.export.export(model, (_fresh(model, 4, 0),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 7):
        x = _fresh(model, batch, 11)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


# Those of our own are exported by tests/deploy, a ResNet by tests/e2e.
EXPORTED = ["timm:test_efficientnet"]


@pytest.mark.parametrize(
    "name",
    [*EXPORTED, *(pytest.param(n, marks=pytest.mark.slow) for n in [*QUICK, *LARGE] if n not in EXPORTED + MAPS)],
)
def test_onnx_file_holds_prediction_and_maps(name, tmp_path):
    model = _model(name, outputs=1)
    novelty, quantiles = _novelty(model)
    kept = references(_fresh(model, 8, 7).numpy(), _fresh(model, 4, 8).numpy(), 0)
    folder = bundle.save(tmp_path / "bundle", model, novelty, _info(name), kept)
    known = {key: _info(name)[key] for key in ("task", "input", "targets", "explained", "data")}
    about = {"run_id": None, "git_commit": None, "metrics": {}, "distance": {"quantiles": quantiles}}
    config = ExportConfig(explanations="all", ig_steps=4, eg_draws=4)
    report = writing.write(folder, tmp_path / "a.onnx", {**known, **about}, config)
    assert {"gradient", "grad_x_input", "integrated_gradients", "expected_gradients"} <= set(report["explanations"])
    assert max(report["parity"][key] for key in ("prediction", "distance", *report["explanations"])) <= 1e-4


COMPILED = [("conv", "aot_eager"), ("timm:test_resnet", "aot_eager"), ("timm:test_vit", "aot_eager")]


@pytest.mark.parametrize(
    ("name", "backend"),
    [*COMPILED, *(pytest.param(n, "inductor", marks=pytest.mark.slow) for n in [*QUICK, *LARGE])],
)
def test_compiled_network_gives_the_same_values_and_gradients(name, backend):
    network = create(name, _fitting(name, (1, 32, 32)), 1)
    _anywhere(network).eval()
    torch.compiler.reset()
    found = []
    for run in (network, torch.compile(network, backend=backend, fullgraph=True)):
        x = torch.from_numpy(_images(network.in_shape, 3)).requires_grad_(True)
        y = run(x)
        found.append((y.detach(), *torch.autograd.grad(y.sum(), x)))
    (value, slope), (compiled, compiled_slope) = found
    torch.testing.assert_close(compiled, value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))
    torch.testing.assert_close(compiled_slope, slope, rtol=1e-3, atol=1e-3 * float(slope.abs().max()))


@pytest.mark.parametrize("name", SCALARS)
def test_clamp_acts_in_physical_units(name):
    shape, targets = _fitting(name, (1, 16, 16)), np.array([[-9.0], [-9.5]])
    model = Model.for_data(create(name, shape, 1, {"clamp": True}), _images(shape, 2), targets)
    free = Model.for_data(create(name, shape, 1), _images(shape, 2), targets)
    x = torch.from_numpy(_images(shape, 4))
    assert (free.eval()(x) < 0).all()
    assert (model.eval()(x) == 0).all()


@pytest.mark.parametrize("name", QUICK)
def test_every_point_of_the_search_space_is_a_valid_option(name):
    defaults = registry.default_options(name)
    for key, domain in registry.space(name).items():
        assert key in defaults
        values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        assert isinstance(domain, Choice | Range)
        for value in values:
            create(name, _fitting(name, (1, 16, 16)), 1, {key: value})


@pytest.mark.parametrize("name", QUICK)
def test_unknown_option_is_one_line(name):
    with pytest.raises(InputError, match="dropuot") as caught:
        create(name, (1, 16, 16), 1, {"dropuot": 0.1})
    assert "\n" not in str(caught.value)
    assert "clamp" in str(caught.value)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 9, 31)])
def test_a_map_has_the_images_size_whatever_the_network_was_made_for(name, shape):
    network = create(name, (4, 12, 20), 1).eval()
    x = torch.from_numpy(_images(shape, 2))
    assert network(x).shape == (2, 1, *shape[1:])
    torch.testing.assert_close(network.head(network.trunk(x)), network(x))
    described = Model.blank(network).features(x)
    assert described.shape[0] == 2
    assert described.shape == Model.blank(network).features(x[..., :8]).shape


@pytest.mark.parametrize("name", MAPS)
def test_what_a_map_says_moves_with_the_image(name):
    network = create(name, (4, 40, 40), 1, seed=3).double().eval()
    wide = torch.zeros(1, 4, 64, 64, dtype=torch.float64)
    wide[:, :, 29:35, 30:33] = torch.from_numpy(_images((4, 6, 3), 1)).double()
    here, moved = network(wide), network(wide.roll((2, -3), dims=(2, 3)))
    torch.testing.assert_close(moved[..., 16:48, 16:48], here.roll((2, -3), dims=(2, 3))[..., 16:48, 16:48])
    assert here[..., 16:48, 16:48].std() > 0


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("answer", ["sigmoid", "softmax"])
def test_answers_are_scores_and_eightfold_ones_turn_with_the_image(name, answer):
    options = {"answer": answer, "eightfold": True}
    model = Model.blank(create(name, (4, 12, 20), 1, options, seed=2)).double()
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
        create(name, (4, 12, 20), 2)
    with pytest.raises(InputError, match="clamp"):
        create(name, (4, 12, 20), 1, {"clamp": True})
