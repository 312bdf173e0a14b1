"""The demo makes what it says: every claim is recomputed from the files it left."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import xarray
from PIL import Image

from tracking import models, runs
from tracking.store import connect

KEYS = {"task", "data", "digest", "runs", "best_run", "baselines", "model_version", "onnx", "metrics",
        "prediction", "server", "seconds"}  # fmt: skip


def test_stdout_is_one_json_object(demo):
    assert demo.stdout.count("\n") == 1
    assert set(demo.result) >= KEYS
    assert set(demo.result["metrics"]) >= {"mae", "rmse", "r2", "unseen_mae", "unseen_r2"}


def trained_values(demo):
    """The values of U in the training split, by the split's own function."""
    from pipelines.learning.fitting import load_parts
    from pipelines.settings import load

    chosen = load("hubbard", "test")
    return np.unique(load_parts(demo.data, chosen.task, chosen.split).train.coordinates["U"].round(9))


@pytest.mark.parametrize(("store", "prefix"), [("fresh.zarr", ""), ("fresh-unseen.zarr", "unseen_")])
def test_metrics_are_those_of_the_exported_file_on_fresh_states(demo, store, prefix):
    fresh = xarray.open_zarr(demo.folder / "demo-output" / store)
    session = onnxruntime.InferenceSession(str(demo.onnx), providers=["CPUExecutionProvider"])
    predicted = session.run(["prediction"], {"image": fresh.image.values})[0][:, 0]
    seen = np.isin(fresh.U.values.round(9), trained_values(demo)) | bool(prefix)
    error, true = (predicted - fresh.U.values)[seen], fresh.U.values[seen]
    assert prefix or 0 < seen.sum() < len(seen)  # the held-out values are left out of the plain metrics
    assert demo.result["metrics"][f"{prefix}mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    r2 = 1 - (error**2).sum() / ((true - true.mean()) ** 2).sum()
    assert demo.result["metrics"][f"{prefix}r2"] == pytest.approx(r2, rel=1e-4)
    assert fresh.attrs["digest"] != demo.result["digest"]


def test_fresh_states_have_values_that_training_never_saw(demo):
    trained = xarray.open_zarr(demo.data).U.values
    unseen = xarray.open_zarr(demo.folder / "demo-output" / "fresh-unseen.zarr").U.values
    assert np.abs(unseen[:, None] - np.unique(trained)).min() > 1e-6


def test_the_network_has_learnt_something(demo):
    assert demo.result["metrics"]["unseen_mae"] < 0.6 * demo.result["baselines"]["mean"]["unseen_mae"]
    assert demo.result["baselines"]["kernel_ridge"]["unseen_r2"] > 0.9


def test_runs_are_recorded_with_data_config_and_figures(demo, monkeypatch):
    monkeypatch.chdir(demo.folder)
    store = connect()
    rows = {row.id: row for row in runs.find(store, "hubbard")}
    best = rows[demo.result["best_run"]]
    assert best.tags["data.digest"] == demo.result["digest"]
    assert best.params["train.network"] == best.tags["network"]
    assert {"split.seed", "train.learning_rate", "train.seed", "preset"} <= set(best.params)
    assert {"mae", "unseen_mae", "train_loss"} <= set(best.metrics)
    trained = [rows[run] for run in demo.result["runs"][1:]]
    assert {row.tags["network"] for row in trained} == {"lattice", "conv"}
    assert all("kernel_ridge.unseen_robust_mae" in row.metrics for row in trained)
    for name in ("parity", "residuals", "learning_curve", "examples"):
        assert runs.download(store, best.id, f"figures/{name}.png").stat().st_size > 2000
    environment = json.loads(runs.download(store, best.id, "environment.json").read_text())
    assert environment["seeds"]["train"] == 0
    trials = runs.find(store, "hubbard", parent=demo.result["runs"][0])
    assert len(trials) == 2


def test_the_champion_is_the_exported_file(demo, monkeypatch):
    monkeypatch.chdir(demo.folder)
    store = connect()
    path = models.resolve(store, demo.model)
    assert path.read_bytes() == demo.onnx.read_bytes()
    info = models.champion(store, "stm-hubbard")
    assert (info.version, info.run_id) == (demo.result["model_version"], demo.result["best_run"])


def test_the_answer_came_from_the_server_with_its_explanation(demo):
    answer = demo.result["prediction"]
    session = onnxruntime.InferenceSession(str(demo.onnx), providers=["CPUExecutionProvider"])
    fresh = xarray.open_zarr(demo.folder / "demo-output" / "fresh-unseen.zarr").image.values[:1]
    value, gradient = session.run(["prediction", "gradient"], {"image": fresh})
    assert answer["U"]["value"] == pytest.approx(float(value[0, 0]), rel=1e-4)
    assert demo.result["server"]["ready"] is True
    files = {path.rsplit(".", 1)[1]: path for path in demo.result["files"]}
    np.testing.assert_allclose(np.load(files["npy"]), gradient[0], rtol=1e-3, atol=1e-3 * np.abs(gradient).max())
    with Image.open(files["png"]) as picture:
        assert min(picture.size) > 200


def test_what_it_says_to_do_next_works(demo, command):
    from pipelines.demo import describe, next_commands

    text = describe(demo.result)
    assert "best mae on unseen values: kernel_ridge" in text
    predict, serve, compare = next_commands(demo.result)
    assert (serve[1:], compare[1:]) == (["serve", demo.model], ["compare"])
    code, out, err = command(*predict[1:])
    assert code == 0, err
    assert "sample-00003_gradient.png" in out


def test_again_it_keeps_what_is_there(demo, command):
    code, out, err = command("demo", "--preset", "test", "--json")
    assert code == 0, err
    again = json.loads(out)
    for key in ("digest", "best_run", "metrics", "onnx"):
        assert again[key] == demo.result[key]
    assert again["model_version"] == models.champion(connect(), "stm-hubbard").version
    assert again["runs"][1:] == demo.result["runs"][1:]
    assert "already" in again["promotion"]["reason"]
