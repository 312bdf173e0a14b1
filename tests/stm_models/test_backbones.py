"""Networks of other libraries: what they start from, which images they take, and what is refused."""

import hashlib
import json
import logging
import pickle
import re
import sys
from urllib.error import URLError

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from stm_models.errors import InputError
from stm_models.networks import bundle, registry, resnet, timm_backbone
from stm_models.networks.model import Model
from stm_models.networks.start_weights import average_stem

SHAPE = (2, 33, 35)
INFO = {"input": {}, "targets": [], "task": "t", "data": {}, "explained": 0}


@pytest.fixture(scope="module")
def published():
    """What torchvision publishes for ResNet-18, but random: three colours, 1000 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.resnet18()
    for key, value in network.state_dict().items():
        if "running_mean" in key:
            value.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(len(key)))
    return network.eval()


@pytest.fixture(scope="module")
def files(published, tmp_path_factory):
    """The same weights in every form that is read."""
    folder, state = tmp_path_factory.mktemp("weights"), published.state_dict()
    save_file(state, folder / "plain.safetensors")
    torch.save(state, folder / "plain.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "wrapped.pt")
    return folder


def _x(shape=SHAPE, count=3):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("file", ["plain.safetensors", "plain.pth", "wrapped.pt"])
def test_resnet_from_a_file_sees_the_mean_over_channels(published, files, file, caplog):
    path = files / file
    with caplog.at_level(logging.WARNING):
        network = registry.create("resnet18", SHAPE, 1, {"weights": str(path), "normalise": False}).eval()
    grey = _x().mean(dim=1, keepdim=True)
    published.fc, kept = torch.nn.Identity(), published.fc
    want = published(grey.repeat(1, 3, 1, 1) / 3)
    published.fc = kept
    torch.testing.assert_close(network.features(_x()), want, rtol=1e-4, atol=1e-4)
    assert network.start == {
        "weights": file,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "unused": ["fc.bias", "fc.weight"],
    }
    assert "head starts fresh" in caplog.text


def test_normalised_features_have_unit_norm():
    network = registry.create("resnet18", SHAPE, 1).eval()
    torch.testing.assert_close(network.features(_x()).norm(dim=1), torch.ones(3))
    free = registry.create("resnet18", SHAPE, 1, {"normalise": False}).eval()
    torch.testing.assert_close(torch.nn.functional.normalize(free.features(_x()), dim=1), network.features(_x()))


def test_stem_of_one_channel_is_the_mean_of_the_colours():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 7, 7, generator=generator)
    torch.testing.assert_close(average_stem(weight, 1), weight.mean(dim=1, keepdim=True))
    image = torch.randn(1, 1, 9, 9, generator=generator)
    several = torch.nn.functional.conv2d(image.repeat(1, 5, 1, 1), average_stem(weight, 5))
    torch.testing.assert_close(several, torch.nn.functional.conv2d(image, average_stem(weight, 1)))


def test_timm_from_a_file_is_what_timm_itself_makes_of_it(tmp_path):
    source = timm.create_model("test_vit", num_classes=7)
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    weights = {"weights": str(tmp_path / "a.safetensors")}
    network = registry.create("timm:test_vit", (1, 48, 32), 1, weights).eval()  # the file is for 3 x 160 x 160
    overlay = {"state_dict": source.state_dict(), "num_classes": 7}
    want = timm.create_model(
        "test_vit", True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=0, img_size=(48, 32)
    )
    x = _x((1, 48, 32))
    torch.testing.assert_close(network.features(x), want.eval()(x))
    assert network.start["unused"] == ["head.bias", "head.weight"]


def test_start_from_one_of_our_own_bundles(tmp_path):
    first = Model.blank(registry.create("timm:test_resnet", (1, 32, 32), 1, seed=4)).eval()
    info = INFO | {"network": "timm:test_resnet", "options": {}}
    weights = bundle.save(tmp_path / "b", first, None, info) / "weights.safetensors"
    network = registry.create("timm:test_resnet", (1, 40, 40), 2, {"weights": str(weights)}, seed=5).eval()
    torch.testing.assert_close(network.features(_x((1, 40, 40))), first.network.features(_x((1, 40, 40))))


def test_loading_a_bundle_needs_the_file_no_more_and_records_its_digest(files, tmp_path, monkeypatch):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((files / "plain.safetensors").read_bytes())
    options = {"weights": str(weights), "dropout": 0.1}
    model = Model.blank(registry.create("resnet18", SHAPE, 1, options)).eval()
    folder = bundle.save(tmp_path / "b", model, None, INFO | {"network": "resnet18", "options": options})
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    loaded = bundle.load(folder)
    assert torch.equal(loaded.model(_x()), model(_x()))
    assert (
        json.loads((folder / "model.json").read_text())["start"]["sha256"] == digest == loaded.info["start"]["sha256"]
    )
    again = bundle.save(tmp_path / "c", loaded.model, None, loaded.info)
    assert bundle.load(again).info == loaded.info

    def refuse(*_):
        raise AssertionError("the network")

    monkeypatch.setattr(resnet.ResNet, "download", refuse)
    bundle.save(tmp_path / "d", model, None, INFO | {"network": "resnet18", "options": {"pretrained": True}})
    bundle.load(tmp_path / "d")


def _refused(options, *words, name="resnet18", shape=SHAPE):
    with pytest.raises(InputError) as caught:
        registry.create(name, shape, 1, options)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said
    return said


def test_weights_of_another_network_are_told_apart(tmp_path, published):
    state = {key: value for key, value in published.state_dict().items() if not key.startswith("layer4.1")}
    state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    save_file({**state, "layer9.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    _refused(
        {"weights": str(tmp_path / "a.safetensors")},
        "missing: layer4.1.conv1.weight", "and 6 more", "not known: layer9.weight",
        "of another shape: layer1.0.conv1.weight (64, 64, 5, 5) instead of (64, 64, 3, 3)", "(fc) may differ",
    )  # fmt: skip
    _refused({"weights": str(tmp_path / "a.safetensors")}, "do not fit", name="timm:test_resnet", shape=(1, 32, 32))


class _Bomb:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("code.pth", lambda p, s: torch.save({"state_dict": _Bomb()}, p), ["code or objects", "safetensors"]),
        ("bare.pt", lambda p, s: p.write_bytes(pickle.dumps(_Bomb())), ["code or objects"]),
        ("text.pt", lambda p, s: p.write_text("weights"), ["weights"]),
        ("empty.pth", lambda p, s: p.write_bytes(b""), ["cannot be read"]),
        ("short.safetensors", lambda p, s: p.write_bytes(s[: len(s) // 2]), ["cannot be read"]),
        ("list.pt", lambda p, s: torch.save([torch.ones(2)], p), ["no state_dict"]),
        ("nan.pt", lambda p, s: torch.save({"a": torch.tensor([float("nan")])}, p), ["NaN", "a"]),
        ("weights.npz", lambda p, s: p.write_bytes(b"x"), [".safetensors, .pt, .pth"]),
        ("absent.pt", lambda p, s: None, ["existing file"]),
        ("folder.pt", lambda p, s: p.mkdir(), ["existing file"]),
    ],
)
def test_files_that_are_no_weights(tmp_path, files, name, make, words, capsys):
    make(tmp_path / name, (files / "plain.safetensors").read_bytes())
    _refused({"weights": str(tmp_path / name)}, *words, name)
    assert "run" not in capsys.readouterr().out.split()


def test_only_one_start(files):
    with pytest.raises(InputError, match="choose one"):
        registry.check("timm:test_vit", {"pretrained": True, "weights": str(files / "plain.pth")})


def test_published_weights_of_torchvision(published, monkeypatch):
    monkeypatch.setattr(
        torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: dict(published.state_dict())
    )
    network = registry.create("resnet18", (1, 32, 32), 1, {"pretrained": True})
    torch.testing.assert_close(network.body.conv1.weight, published.conv1.weight.mean(dim=1, keepdim=True))
    assert torch.equal(network.body.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    assert network.start == {"pretrained": "ResNet18_Weights.IMAGENET1K_V1"}

    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    _refused({"pretrained": True}, "resnet18", "could not be had", "no route to host", "train.options.weights=FILE")


def test_published_weights_of_timm(monkeypatch):
    source = timm.create_model("test_resnet", num_classes=1000)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", lambda *_, **__: source.state_dict())
    network = registry.create("timm:test_resnet.r160_in1k", (1, 32, 32), 1, {"pretrained": True})
    assert torch.equal(network.body.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    assert network.start["pretrained"]["tag"] == "r160_in1k"
    assert not any(getattr(module, "inplace", False) for module in network.modules())


def test_timm_without_a_connection(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    _refused(
        {"pretrained": True}, "could not be had", "train.options.weights=FILE", name="timm:test_vit", shape=(1, 32, 32)
    )
    unpublished = next(name for name in timm.list_models("resnet*") if not timm_backbone.tags(name))
    _refused({"pretrained": True}, "there are none", name=f"timm:{unpublished}", shape=(1, 64, 64))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnt18", ["no network 'resnt18'", "timm:resnet18", "stm models"]),
        ("timm:resnet18.ra2", ["no weights 'ra2' of network 'resnet18'", "timm:resnet18.a"]),
        ("timm:", ["no network ''"]),
        ("timm:hf-hub:me/net", ["no network"]),
        ("tim:resnet18", ["unknown network", "timm:NAME"]),
    ],
)
def test_unknown_timm_names_have_near_ones(name, words):
    for refuse in (lambda: registry.check(name, {}), lambda: registry.create(name, (1, 32, 32), 1)):
        with pytest.raises(InputError) as caught:
            refuse()
        assert all(word in str(caught.value) for word in words), caught.value


def test_missing_package_is_told(monkeypatch):
    timm_backbone._timm.cache_clear()
    timm_backbone.network.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs timm.*install stm-lab\[train\]"):
        registry.check("timm:test_vit4", {})
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(InputError, match=r"needs torchvision.*install stm-lab\[train\]"):
        registry.create("resnet34", (1, 32, 32), 1)
    timm_backbone._timm.cache_clear()


@pytest.mark.parametrize(
    ("name", "shape", "good", "bad"),
    [
        ("timm:test_vit", (1, 40, 40), ["48 x 48", "64 x 64"], ["16 x 17"]),
        ("timm:vit_tiny_patch16_224", (1, 50, 50), ["patches of 16 x 16", "48 x 48"], []),
        ("timm:test_vit", (3, 32, 40), ["32 x 32", "3 channels"], []),
        ("timm:test_convnext", (1, 16, 16), ["32 x 32", "1 channel "], ["are 16 x 16"]),
        pytest.param(
            "timm:test_coatnet",
            (1, 48, 48),
            ["32 x 32, 64 x 64"],
            [", 48 x 48"],
            marks=pytest.mark.skipif(not timm.is_model("test_coatnet"), reason="this old timm has no test_coatnet"),
        ),
    ],
)
def test_images_that_a_network_cannot_take(name, shape, good, bad):
    before = torch.random.get_rng_state()
    said = _refused({}, "cannot take images of", f"{shape[1]} x {shape[2]} pixels", *good, name=name, shape=shape)
    assert not any(word in said for word in bad)
    assert torch.equal(before, torch.random.get_rng_state())
    working = re.search(r"sizes that work are, among others, (\d+) x", said)
    registry.create(name, (shape[0], int(working[1]), int(working[1])), 1)


def test_a_module_that_meta_cannot_hold_is_tried_for_real(monkeypatch):
    build = timm_backbone.TimmBackbone.build.__func__

    def picky(cls, shape):
        if torch.get_default_device().type == "meta":
            raise NotImplementedError("no meta here")
        return build(cls, shape)

    monkeypatch.setattr(timm_backbone.TimmBackbone, "build", classmethod(picky))
    assert registry.create("timm:test_resnet", (1, 20, 20), 1).head.in_features == 96
    _refused({}, "cannot take", "no size was found", name="timm:test_vit", shape=(1, 40, 40))
