"""Networks of timm and torchvision through the command line."""

import hashlib
import json

import pytest
import timm
from safetensors.torch import save_file

from tracking import runs
from tracking.store import connect

FEW = "train.epochs=2"


def test_timm_network_is_trained_from_a_file_recorded_and_exported(demo, command, tmp_path):
    weights = tmp_path / "start.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), weights)
    code, out, err = command(
        "train", "hubbard", "--data", str(demo.data), "--preset", "test", "--model", "timm:test_resnet",
        "--set", FEW, "--set", f"train.options.weights={weights}", "--json",
    )  # fmt: skip
    assert code == 0, err
    run_id = json.loads(out)["run_id"]
    folder = runs.download(connect(), run_id, "bundle")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.unlink()
    tags = runs.get(connect(), run_id).tags
    assert (tags["start.weights"], tags["start.sha256"]) == ("start.safetensors", digest)
    assert json.loads((folder / "model.json").read_text())["start"] == {
        "weights": "start.safetensors", "sha256": digest, "unused": ["fc.bias", "fc.weight"],
    }  # fmt: skip
    code, out, err = command("export", run_id, "--out", str(tmp_path / "a.onnx"), "--json")
    assert code == 0, err
    code, out, err = command("predict", str(tmp_path / "a.onnx"), str(demo.data), "--sample", "0", "--json")
    assert code == 0, err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model", "timm:resnt18"], ["no network 'resnt18'", "timm:resnet18"]),
        (["--model", "timm:test_convnext", "--set", "train.options.weights=none.pt"], ["weights", "existing file"]),
        (["--model", "timm:inception_v3"], ["cannot take images of 32 x 32 pixels", "96 x 96"]),
        (["--model", "resnet18", "--set", "train.options.depth=3"], ["unknown key 'depth'", "pretrained"]),
    ],
)
def test_networks_that_cannot_be_trained(demo, command, more, words):
    code, out, err = command("train", "hubbard", "--data", str(demo.data), "--preset", "test", *more)
    said = err.strip().splitlines()[-1]
    assert (code, out) == (2, "")
    assert said.startswith("error: ")
    assert all(word in said for word in words), said
