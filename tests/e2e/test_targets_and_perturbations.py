"""Several targets from training to answers; perturbation sets in training and evaluation."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml

from tracking import runs
from tracking.store import connect

SETS = ["clean", "mild", "symb", "noisy", "instrument"]


def _train(command, demo, values, *more):
    arguments = ("train", "hubbard", "--data", str(demo.data), "--preset", "test", "--set", values, "--json", *more)
    code, out, err = command(*arguments)
    assert code == 0, err
    return json.loads(out)


def test_several_targets_from_training_to_answers(command, demo, tmp_path):
    trained = _train(command, demo, "train.epochs=150;train.learning_rate=3e-3;train.targets=[U,charge_modulation]")
    assert trained["metrics"]["r2_charge_modulation"] > 0.8
    assert trained["metrics"]["unseen_mae_charge_modulation"] < 0.02
    trust = {"coverage", "width", "false_alarms"}  # of the network alone
    assert set(trained["baselines"]["ridge"]) == {
        name for name in trained["metrics"] if name.rpartition(".")[2] not in trust
    }  # fmt: skip
    row = runs.get(connect(), trained["run_id"])
    assert {"val_mae_U", "val_mae_charge_modulation"} <= set(row.metrics)
    assert "charge_modulation" in row.params["train.targets"]

    onnx = str(tmp_path / "two.onnx")
    code, out, err = command("export", trained["run_id"], "--out", onnx, "--json")
    assert code == 0, err
    found = json.loads(command("evaluate", onnx, "--data", "demo-output/fresh-unseen.zarr", "--json")[1])
    assert found["metrics"]["r2_charge_modulation"] > 0.8
    code, out, err = command("predict", onnx, "demo-output/fresh-unseen.zarr", "--sample", "1", "--json")
    assert code == 0, err
    answer = json.loads(out)["answers"][0]
    assert answer["U"]["unit"] == "eV"
    assert answer["charge_modulation"]["unit"] == "electrons"
    assert answer["charge_modulation"]["value"] == pytest.approx(answer["true"]["charge_modulation"], abs=0.02)
    said = command("predict", onnx, "demo-output/fresh-unseen.zarr", "--sample", "1")[1]
    assert re.search(r"electrons, [\d.]+ to [\d.]+ at 90 % \(true ", said)

    refused = json.loads(command("promote", "hubbard", "--run", trained["run_id"], "--json")[1])
    assert refused["promoted"] is False
    assert "predicts U, this one U and charge_modulation" in refused["reason"]


def test_an_unknown_target_or_perturbation_lists_the_choices(command, demo):
    start = ("train", "hubbard", "--data", str(demo.data), "--preset", "test", "--set")
    code, _, err = command(*start, "train.targets=[U,gab]")
    assert code == 2
    assert "unknown target of the data set " in err
    assert "'gab': choose from U, " in err
    assert "did you mean 'gap'" in err
    code, _, err = command(*start, "train.perturbation=nois")
    assert code == 2
    choices = "clean, mild, symb, noisy, instrument, mixed, mixed_width, atom_width"
    assert f"unknown perturbation 'nois': choose from {choices}; did you mean 'noisy'" in err
    code, _, err = command(*start, "split.judged=[clean,nois]")
    assert code == 2
    assert "unknown perturbation 'nois'" in err
    for wrong in (("--perturbation", "mild,blurred"), ("--perturbation", "mild", "--perturbation-seed", "-1")):
        code, _, err = command("evaluate", demo.model, "--data", str(demo.data), *wrong)
        assert code == 2
        assert "choose from clean" in err or "expected 0 or above" in err


def test_evaluation_on_named_sets_is_reproducible(command, demo):
    def evaluate(*more):
        arguments = ("evaluate", demo.model, "--data", "demo-output/fresh-unseen.zarr", *more)
        code, out, err = command(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    everything = evaluate("--perturbation", "all", "--perturbation-seed", "3")
    plain = {name for name in everything["metrics"] if "." not in name}
    assert plain == {"mae", "rmse", "r2", "outside", "coverage", "width", "false_alarms"}
    assert set(everything["metrics"]) - plain == {f"{one}.{name}" for one in SETS for name in plain}
    assert list(everything["perturbations"]) == SETS
    for name in plain:
        assert everything["metrics"][f"clean.{name}"] == everything["metrics"][name]
    assert everything["metrics"]["noisy.mae"] > 2 * everything["metrics"]["mae"]
    # The model was trained on `mild` and knows some noise: an instrument's still stands out.
    assert everything["metrics"]["instrument.false_alarms"] >= everything["metrics"]["false_alarms"] + 0.5
    assert everything["metrics"]["instrument.outside"] >= everything["metrics"]["outside"]

    two = evaluate("--perturbation", "noisy,instrument", "--perturbation-seed", "3")
    for name in ("noisy", "instrument"):
        assert two["perturbations"][name] == everything["perturbations"][name]
        assert two["metrics"][f"{name}.mae"] == everything["metrics"][f"{name}.mae"]
    other = evaluate("--perturbation", "noisy")
    assert other["perturbations"]["noisy"] != two["perturbations"]["noisy"]
    assert not any("." in name for name in evaluate()["metrics"])

    store = connect()
    row = runs.get(store, two["run_id"])
    assert row.tags["perturbation.noisy.digest"] == two["perturbations"]["noisy"]
    record = json.loads(runs.download(store, two["run_id"], "perturbations/noisy.json").read_text())
    assert record["seed"] == 3
    assert record["steps"][0] == {"kind": "gaussian", "probability": 0.3, "sigma": [0.004, 0.012]}


@pytest.mark.parametrize("name", ["noisy", "instrument"])
def test_training_on_request_alone(command, demo, name):
    clean = _train(command, demo, "train.epochs=2")
    first, second = (_train(command, demo, f"train.epochs=2;train.perturbation={name}") for _ in range(2))
    assert first["metrics"] == second["metrics"] != clean["metrics"]
    # The baselines see the images as they are.
    assert first["baselines"] == clean["baselines"]
    store = connect()
    config = yaml.safe_load(runs.download(store, first["run_id"], "config.yaml").read_text())
    assert config["train"]["perturbation"] == name
    assert json.loads(runs.download(store, first["run_id"], "perturbation.json").read_text())["name"] == name
    bundle = json.loads((runs.download(store, first["run_id"], "bundle") / "model.json").read_text())
    assert bundle["data"]["perturbation"] == name
    assert np.isfinite(list(bundle["distance"]["quantiles"].values())).all()
