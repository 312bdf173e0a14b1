import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.networks import bundle, bundle_files, registry
from stm_models.networks.base import BlockMean
from stm_models.networks.model import Model
from stm_models.regression.scaling import pixel_statistics, target_statistics

INFO = {
    "network": "mlp", "options": {"hidden": [8]}, "input": {}, "targets": [], "task": "t", "data": {},
    "explained": 0,
}  # fmt: skip


def _mlp(tmp_path=None):
    rng = np.random.default_rng(0)
    network = registry.create("mlp", (1, 8, 8), 1, {"hidden": [8]})
    model = Model.for_data(network, rng.normal(size=(5, 1, 8, 8)).astype(np.float32), rng.normal(size=(5, 1)))
    if tmp_path is not None:
        bundle.save(tmp_path / "b", model, None, INFO)
    return model.eval()


def test_unknown_network_lists_the_choices():
    with pytest.raises(
        InputError,
        match=r"unknown network 'conw': choose from conv, fc, .*, resnet18, .*, timm:NAME; did you mean 'conv'",
    ):
        registry.create("conw", (1, 8, 8), 1)


def test_a_name_is_given_once():
    kind = type("Other", (type(registry.create("mlp", (1, 8, 8), 1)),), {})
    with pytest.raises(InputError, match="is taken by MLP"):
        registry.register("mlp", kind)
    assert registry.names() == sorted(registry.names())


def test_hidden_can_be_text():
    network = registry.create("mlp", (1, 8, 8), 1, {"hidden": "12-5"})
    assert network.options.hidden == (12, 5)
    assert network.head.in_features == 5
    with pytest.raises(InputError, match="hidden"):
        registry.create("mlp", (1, 8, 8), 1, {"hidden": "wide"})


def test_fully_connected_is_the_papers():
    network = registry.create("fc", (1, 8, 9), 1)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(72, 512), (512, 256), (256, 1)]
    assert sum(isinstance(m, torch.nn.ReLU) for m in network.modules()) == 2


def test_linear_is_linear_in_block_means():
    network = registry.create("linear", (2, 5, 4), 3, {"pool": 2}, seed=1)
    x, y = torch.randn(2, 4, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    zero = network(torch.zeros(1, 2, 5, 4))
    torch.testing.assert_close(network(2 * x - y) - zero, 2 * (network(x) - zero) - (network(y) - zero))
    torch.testing.assert_close(network.features(x), BlockMean(2, 5, 4)(x).flatten(1))


@pytest.mark.parametrize(("name", "options"), [("mlp", {"pool": 9}), ("conv", {"pool": 2})])
def test_images_too_small_for_the_pool(name, options):
    with pytest.raises(InputError, match="choose a smaller pool"):
        registry.create(name, (1, 8, 8), 1, options)


def test_block_mean_against_average_pooling():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 12, 8, generator=generator)
    torch.testing.assert_close(BlockMean(4, 12, 8)(x), torch.nn.functional.avg_pool2d(x, 4))
    ragged = torch.randn(1, 1, 5, 7, generator=generator)
    expected = torch.zeros(1, 1, 6, 8)
    expected[..., :5, :7] = ragged
    torch.testing.assert_close(BlockMean(2, 5, 7)(ragged), torch.nn.functional.avg_pool2d(expected, 2))


def test_conv_features_come_from_unit_vectors():
    network = registry.create("conv", (1, 16, 16), 1).eval()
    seen = []
    network.hidden.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(4))
    widths = [m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [32, 32, 64, 64, 128, 128]


def test_statistics_match_numpy_and_have_a_floor():
    images = np.random.default_rng(0).normal(5.0, 2.0, (150, 1, 6, 6)).astype(np.float32)
    images[:, 0, 0, 0] = 1.0
    images[:, 0, 0, 1] = 1.0 + 1e-7 * images[:, 0, 3, 3]
    mean, scale = pixel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=0, dtype=np.float64), rtol=1e-6)
    std = images.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(scale[0, 1:], std[0, 1:], rtol=1e-5)
    np.testing.assert_allclose(scale[0, 0, :2], 1e-3 * np.median(std), rtol=1e-5)
    _, ones = pixel_statistics(np.ones((3, 1, 2, 2), np.float32))
    assert (ones == 1).all()


def test_statistics_refuse_nan_and_nothing():
    images = np.zeros((3, 1, 2, 2), np.float32)
    images[1, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        pixel_statistics(images)
    with pytest.raises(InputError, match="expected"):
        pixel_statistics(images[:0])
    with pytest.raises(InputError, match="NaN or infinity"):
        target_statistics(np.array([[np.inf]]))
    assert target_statistics(np.full((4, 1), 0.3))[1] == 1


def test_model_is_the_network_between_two_scalings():
    model = _mlp()
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = model.network((x - model.pixel_mean) / model.pixel_scale)
    torch.testing.assert_close(model(x), inner * model.target_scale + model.target_mean)
    assert model.features(x).shape == (3, 8)


def test_bundle_is_replaced_as_a_whole(tmp_path):
    _mlp(tmp_path)
    _mlp(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["model.json", "weights.safetensors"]
    loaded = bundle.load(tmp_path / "b")
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.novelty is None


def test_the_mean_of_the_training_images_is_read_without_torch(tmp_path):
    model = _mlp(tmp_path)
    np.testing.assert_array_equal(bundle_files.training_mean(tmp_path / "b"), model.pixel_mean.numpy())
    baseline = np.random.default_rng(1).normal(size=(1, 8, 8)).astype(np.float32)
    bundle.save(tmp_path / "b", model, None, INFO, {"baseline": baseline})
    np.testing.assert_array_equal(bundle_files.training_mean(tmp_path / "b"), baseline)
    np.testing.assert_array_equal(bundle.load(tmp_path / "b").baseline.numpy(), baseline)
    code = "import sys; from stm_models.networks import bundle_files as b; b.training_mean(sys.argv[1])"
    code += ".shape; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, tmp_path / "b"], check=True)
    model.pixel_mean.zero_()  # of a network that takes images as they are
    bundle.save(tmp_path / "b", model, None, INFO)
    assert bundle_files.training_mean(tmp_path / "b") is None


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda b: (b / "weights.safetensors").unlink(), "weights.safetensors is missing"),
        (lambda b: (b / "model.json").unlink(), "model.json is missing"),
        (lambda b: _truncate(b / "weights.safetensors"), "truncated"),
        (lambda b: _truncate(b / "model.json"), "no valid JSON"),
        (lambda b: (b / "model.json").write_text("[]"), "no JSON object"),
        (lambda b: (b / "model.json").write_text("{}"), "lacks network"),
        (lambda b: (b / "model.json").write_text(json.dumps(INFO | {"network": "x"})), "unknown network"),
        (lambda b: (b / "model.json").write_text(json.dumps(INFO | {"options": {}})), "do not fit"),
        (lambda b: (b / "model.json").write_text(json.dumps(INFO | {"options": 3})), "do not fit"),
        (lambda b: (b / "model.json").write_text(json.dumps(INFO | {"network": ["x"]})), "do not fit"),
    ],
)
def test_damaged_bundle_is_one_line(tmp_path, damage, match):
    _mlp(tmp_path)
    damage(tmp_path / "b")
    with pytest.raises(InputError, match=match) as caught:
        bundle.load(tmp_path / "b")
    assert "\n" not in str(caught.value)


def test_bundle_is_not_written_over_something_else(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="no model bundle"):
        bundle.save(tmp_path / "notes", _mlp(), None, INFO)
    with pytest.raises(InputError, match="lacks data"):
        bundle.save(tmp_path / "c", _mlp(), None, {k: v for k, v in INFO.items() if k != "data"})
    assert [p.name for p in tmp_path.iterdir()] == ["notes"]
