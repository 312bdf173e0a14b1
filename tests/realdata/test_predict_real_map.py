"""`stm predict` on a measured map of another material: masked beyond Nyquist, and said to lie far outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli import main

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def folder(nematic, tmp_path_factory):
    """A small model: simulate, train, export, all by the command line."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert main(["simulate", "hubbard", "--preset", "test", "--out", "d.zarr", "--workers", "2"]) == 0
        assert main(["train", "hubbard", "--preset", "test", "--data", "d.zarr", "--set", "train.epochs=20"]) == 0
        assert main(["promote", "hubbard"]) == 0
    return folder


def test_the_nematic_map(nematic, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    capsys.readouterr()
    arguments = ["predict", "models:/stm-hubbard@challenger", str(nematic), "--key", "m428", "--bias", "-0.014"]
    assert main(arguments) == 2
    assert "--size-nm" in capsys.readouterr().err
    arguments += ["--size-nm", "50x50", "--explain", "gradient", "--out", "answer"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["answers"][0]
    assert answer["inside"] is False
    assert answer["novelty"] < 0.02
    assert answer["masked"] > 0.9
    assert any("Nyquist" in note for note in answer["notes"])
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "do not trust" in said
    assert "masked" in said
    assert list(Path("answer").glob("*_gradient.png"))
