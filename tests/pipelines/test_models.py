"""The list of networks."""

import json

import pytest

from pipelines.cli import main
from stm_models.networks import registry


def _models(capsys, *arguments):
    capsys.readouterr()
    code = main(["models", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_models_without_a_pattern_are_ours(capsys):
    code, out, err = _models(capsys, "--json")
    assert code == 0, err
    found = {row["name"]: row for row in json.loads(out)["models"]}
    assert sorted(found) == registry.names()
    assert found["linear"]["parameters"] == 64 * 64 + 1
    assert found["linear"]["flops"] == 2 * 64 * 64
    first = 2 * 64 * 64 * 9 * 32
    assert found["conv"]["flops"] == first + 2 * (
        64 * 64 * 9 * 32 * 32 + 32 * 32 * 9 * (32 * 64 + 64 * 64) + 16 * 16 * 9 * (64 * 128 + 128 * 128)
        + 128 * 256 + 256
    )  # fmt: skip


def test_operations_of_well_known_networks(capsys):
    # Published: 1.814e9 multiply-adds and 11.69e6 parameters, of which 1000 classes have 513000.
    code, out, _ = _models(capsys, "resnet18", "--channels", "3", "--size", "224", "--json")
    (row,) = json.loads(out)["models"]
    assert code == 0
    assert row["parameters"] == 11_689_512 - 513_000 + 513
    assert row["flops"] == pytest.approx(2 * 1.8136e9, rel=1e-3)
    assert row["pretrained"] == ["IMAGENET1K_V1"]
    # DeiT-tiny: 1.26e9 multiply-adds, attention included.
    code, out, _ = _models(capsys, "timm:vit_tiny_patch16_224", "--channels", "3", "--size", "224", "--json")
    assert json.loads(out)["models"][0]["flops"] == pytest.approx(2 * 1.26e9, rel=0.01)


def test_models_by_pattern_and_what_does_not_fit(capsys):
    code, out, err = _models(capsys, "timm:test_vit[34]", "--size", "48")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["timm:test_vit3", "timm:test_vit4"]
    code, out, err = _models(capsys, "lattice")
    assert code == 0, err
    assert out.splitlines()[2].startswith("lattice  is made for a data set's lattice")
    code, out, err = _models(capsys, "*test_vit", "--size", "40")
    assert code == 0, err
    assert "cannot take images of 40 x 40 pixels" in out
    code, out, err = _models(capsys, "resnt18")
    assert (code, out) == (2, "")
    assert "resnet18" in err
    code, _, err = _models(capsys, "--size", "0")
    assert (code, "--size is 0" in err) == (2, True)
