"""`stm inspect RUN`: what a trained network makes of the samples that it was not fitted to, logged with the run."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from support.outcomes import refused
from tracking import models, runs
from tracking.store import connect


def test_representations_are_drawn_and_logged_with_the_run(command, demo, tmp_path):
    store = connect()
    run_id = models.champion(store, "stm-hubbard").run_id
    before = runs.get(store, run_id)
    code, out, err = command("inspect", demo.model, "--out", str(tmp_path / "a"), "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["kind"], result["input"], result["run_id"]) == ("run", run_id, run_id)
    for name in ("pca", "tsne"):
        with Image.open(result["pictures"][name]) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(10**7)) > 50
    report = json.loads((tmp_path / "a" / "inspect.json").read_text())
    assert list(report["colours"])[:2] == ["U", "filling"]
    assert set(report["kinds"]) == {"validation", "unseen values"}
    with open(result["table"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report["images_used"] == sum(report["kinds"].values()) < 108
    assert len({row["sample"] for row in rows}) == len(rows)
    assert {"kind", "pc_1", "pc_2", "tsne_1", "tsne_2", "U", "filling", "bias"} <= set(rows[0])
    # What the network learnt is there, which chain a state belongs to is not.
    assert result["metrics"]["agreement_U"] > 0.3 > 0 > result["metrics"]["agreement_replicate"]

    code, out, err = command(
        "inspect", f"runs:/{run_id}", "--out", str(tmp_path / "b"), "--perturbation", "noisy", "--json"
    )
    assert code == 0, err
    noisy = json.loads(out)
    assert noisy["metrics"]["displacement"] > 1
    assert noisy["metrics"]["agreement_U"] < result["metrics"]["agreement_U"]
    assert noisy["metrics"]["explained_variance_1"] == pytest.approx(result["metrics"]["explained_variance_1"])

    after = runs.get(store, run_id)
    assert (after.status, after.seconds) == (before.status, before.seconds)
    assert after.metrics["representation.agreement_U"] == result["metrics"]["agreement_U"]
    assert after.metrics["representation.noisy.agreement_U"] == noisy["metrics"]["agreement_U"]
    for folder in ("representation", "representation/noisy"):
        held = {path.name for path in runs.download(store, run_id, folder).iterdir() if path.is_file()}
        assert held == {"pca.png", "tsne.png", "representation.csv", "inspect.json"}


def test_another_data_set_and_chosen_colours(command, demo, tmp_path):
    command_line = ("inspect", demo.model, "--out", str(tmp_path), "--data", "demo-output/fresh-unseen.zarr")
    code, out, err = command(*command_line, "--colours", "gap, U")
    assert code == 0, err
    assert "is not the data set that the run was trained on" in out
    report = json.loads((tmp_path / "inspect.json").read_text())
    assert list(report["colours"].items()) == [("gap", "eV"), ("U", "eV")]
    assert list(report["kinds"]) == ["samples"]
    refused(command(*command_line, "--colours", "U,gab"), "unknown coordinate", "'gab'", "did you mean 'gap'")
    refused(command(*command_line, "--perturbation", "noise"), "unknown perturbation 'noise'", "noisy")
    refused(command(*command_line, "--perturbation-seed", "-1"), "--perturbation-seed is -1")


def test_what_is_no_training_run_or_does_not_fit(command, demo, tmp_path):
    out = ("--out", str(tmp_path / "o"))
    store = connect()
    run_id = models.champion(store, "stm-hubbard").run_id
    evaluation = next(row.id for row in runs.find(store, "hubbard") if row.name == "evaluate")
    refused(command("inspect", evaluation, *out), "has no model to look into", "training run")
    refused(command("inspect", "0" * 32, *out), "0" * 32)
    refused(command("inspect", "models:/stm-hubbard@king", *out), "king", "champion")
    refused(command("inspect", "runs:/a/b/c", *out), "runs:/a/b/c", "models:/NAME@ALIAS")
    refused(command("inspect", run_id, *out, "--key", "m"), "--key is m", "is a run")
    refused(command("inspect", str(demo.data), *out, "--perturbation", "mild"), "--perturbation is mild", "a data set")
    refused(command("inspect", run_id, *out, "--data", "none.zarr"), "none.zarr")
    code, _, err = command(
        "simulate", "hubbard", "--preset", "test", "--out", str(tmp_path / "large.zarr"), "--workers", "1",
        "--set", "simulate.image_size=40;simulate.interaction_count=2;simulate.replicates=1",
    )  # fmt: skip
    assert code == 0, err
    refused(command("inspect", run_id, *out, "--data", str(tmp_path / "large.zarr")), "(1, 40, 40)", "(1, 32, 32)")
    assert not (tmp_path / "o").exists()
