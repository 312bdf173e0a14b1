"""The task impurity through the command line: one training with everything that only this task has, then its model."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from deploy.model.session import Session
from deploy.serving.protocol import HEADER, encode_request
from pipelines.cli import main
from pipelines.evaluate import describe
from pipelines.server_process import serving
from stm_models.errors import InputError
from stm_models.files import sha256
from stm_models.signal.mixture import reference_positions
from stm_models.tasks.impurity.answers import positions
from stm_models.tasks.impurity.scoring import scores
from stm_models.training import synthetic
from support import instrument_files
from tracking import runs
from tracking.store import connect

MODEL = "models:/stm-impurity@champion"
PIXEL = 0.46875  # nm
SIDE, HEIGHT, WIDTH = 24, 40, 33  # px, of the model's images and of the measured field


@dataclass(frozen=True)
class Made:
    """Where all is, the training as printed, and a field of 40 x 33 pixels with its true positions (N, 2) y, x.

    ``batches`` are the sizes of the batches that were drawn while training.
    """

    folder: Path
    trained: dict[str, Any]
    batches: list[int]
    maps: np.ndarray
    bias: np.ndarray
    truth: np.ndarray
    bound_state: np.ndarray


def stm(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout, stderr."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([str(one) for one in arguments])
    return code, out.getvalue(), err.getvalue()


def said(*arguments: object) -> dict[str, Any]:
    """Run a command that must succeed, and return the object that it prints."""
    code, out, err = stm(*arguments, "--json")
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("impurity")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        simulate = ("simulate", "impurity", "--preset", "test", "--workers", "1", "--out")
        said(*simulate, "data.zarr")
        experiment = "simulate.generator=experiment;simulate.preset=[std];simulate.fields=2;simulate.size=40"
        said(*simulate, "experiment.zarr", "--set", experiment)
        data = xarray.open_zarr("experiment.zarr")
        maps, bias = data.maps.values[0, :, :, :WIDTH].astype(float), np.array(data.attrs["map_biases"])
        places = data.positions.values[0].astype(float)
        truth = places[(places[:, 0] >= 0) & (places[:, 1] < WIDTH - 0.5)]
        size = (HEIGHT * PIXEL, WIDTH * PIXEL)
        np.savez("stack.npz", data=maps, bias=bias, size_nm=size)
        spectra = np.moveaxis(maps, 0, -1)
        signals = {"LI Demod 1 X (A)": 1e-12 * spectra, "Current (A)": 1e-10 * spectra, "Z (m)": 1e-9 * spectra}
        instrument_files.grid(folder / "grid.3ds", signals, bias=bias, size_nm=size)

        batches, original = [], synthetic.FieldGenerator.batch
        with pytest.MonkeyPatch.context() as spy:
            spy.setattr(
                synthetic.FieldGenerator, "batch",
                lambda self, size, generator: batches.append(size) or original(self, size, generator),
            )  # fmt: skip
            trained = said(
                "train", "impurity", "--preset", "test", "--data", "data.zarr",
                "--set", "train.on_the_fly=true;train.epochs=20;train.epoch_samples=96;train.batch_size=8;"
                "train.confidence_weight=0.01",
                "--experiment", "stack.npz", "grid.3ds",
            )  # fmt: skip
        exported = said("export", trained["run_id"], "--out", "model.onnx")
        promoted = said("promote", "impurity")
        assert promoted["promoted"]
        assert promoted["version"] == exported["version"]
        yield Made(folder, trained, batches, maps, bias, truth, data.bound_state.values[0, :, :WIDTH].astype(float))


def test_measured_maps_and_fields_drawn_while_training(made):
    row = runs.get(connect(), made.trained["run_id"])
    assert made.batches == [8] * 12 * 20  # nothing of the data set but its validation fields is used
    assert row.tags["transductive"] == "true"
    assert row.params["train.on_the_fly"] == "true"
    measured = json.loads(runs.download(connect(), row.id, "measured.json").read_text())
    assert measured == {name: sha256(made.folder / name) for name in ("stack.npz", "grid.3ds")}
    assert row.tags["data.digest"] == xarray.open_zarr("data.zarr").attrs["digest"]
    assert set(made.trained["baselines"]) == {"laplacian", "matched_filter"}
    assert made.trained["metrics"]["f1"] == row.metrics["f1"]
    assert row.metrics["f1"] > max(found["f1"] for found in made.trained["baselines"].values())


def test_measured_maps_must_be_like_the_models(made):
    train = ("train", "impurity", "--preset", "test", "--data", "data.zarr", "--experiment")
    np.savez("far.npz", data=made.maps, bias=made.bias + 2, size_nm=(18.75, 15.0))
    code, _, err = stm(*train, "far.npz")
    assert code == 2
    assert "no map within" in err
    np.savez("unsized.npz", data=made.maps, bias=made.bias)
    code, out, err = stm(*train, "grid.3ds", "unsized.npz", "--json")
    assert code == 2
    assert "as size_nm in an .npz file" in err
    assert "grid.3ds: 3 of 3 maps" in err
    assert not out
    for targets in ("[pixel, heat]", "[heat]"):  # a network's answers are told apart by their place
        code, _, err = stm(*train[:-1], "--set", f"train.targets={targets}")
        assert code == 2
        assert "they are maps, expected ['heat', 'pixel'] in this order" in err
    code, _, err = stm("train", "hubbard", "--preset", "test", "--data", "data.zarr", "--experiment", "stack.npz")
    assert code == 2
    assert "hubbard" in err


def test_an_evaluation_tells_of_rings_and_of_the_ceiling(made):
    found = said("evaluate", MODEL, "--data", "experiment.zarr")
    scores = found["metrics"]
    assert scores["occluded_peaks"] > 0
    assert 0 <= scores["without_rings"] <= 1
    assert 0 <= scores["without_core"] <= 1
    assert 0.7 < scores["ratio_of_the_truth"] <= 1
    assert 0.7 < scores["reference_f1"] <= 1
    assert 0 < scores["reference_ratio"] <= 1
    assert 0 <= scores["confidence_error"] <= 1
    assert 0 <= scores["radius_coverage"] <= 1
    logged = runs.get(connect(), found["run_id"]).metrics
    assert {name: logged[name] for name in scores} == pytest.approx(scores)
    own = said("evaluate", MODEL, "--data", "data.zarr", "--perturbation", "all")
    assert {"without_core", "clean.f1"} <= set(own["metrics"])
    assert not {"reference_f1", "clean.without_core"} & set(own["metrics"])
    assert "  without_core  " in describe(own)


@pytest.mark.parametrize("kind", ["table in px", "table in nm", "bound states"])
def test_references_of_a_measured_file(made, kind):
    reference = Path("known.csv")
    if kind == "bound states":
        reference = Path("bound.npy")
        np.save(reference, made.bound_state)
        known = reference_positions(made.bound_state).positions
    else:
        known = made.truth
        values = (known + 0.5) * PIXEL if "nm" in kind else known
        unit = kind[-2:]
        rows = [f"x_{unit},y_{unit}", *(f"{x:.6f},{y:.6f}" for y, x in values)]
        reference.write_text("\n".join(rows) + "\n")
    found = said("evaluate", MODEL, "--data", "grid.3ds", "--reference", reference)
    expected = scores([positions(found["answer"])], [known], (HEIGHT, WIDTH))
    logged = runs.get(connect(), found["run_id"])
    for name in ("precision", "recall", "f1", "error_px"):
        assert found["metrics"][f"reference_{name}"] == pytest.approx(expected[name], abs=2e-3)
        assert logged.metrics[f"reference_{name}"] == found["metrics"][f"reference_{name}"]
    assert found["metrics"]["reference_precision"] > 0.7
    assert found["metrics"]["reference_known"] == len(known)
    assert logged.tags["data.sha256"] == found["digests"]["data"] == sha256("grid.3ds")
    assert logged.tags["reference.sha256"] == found["digests"]["reference"] == sha256(reference)


def test_a_bound_state_map_of_other_pixels_within_a_stack(made):
    """Twice as many pixels along each side, one map of three: the same answer, in the measured file's pixels."""
    bound = np.stack([np.zeros_like(made.bound_state), made.bound_state, np.ones_like(made.bound_state)])
    fine = bound.repeat(2, axis=1).repeat(2, axis=2)
    np.savez("fine.npz", data=fine, bias=np.array([-0.6, -0.52, -0.4]), size_nm=np.array([HEIGHT, WIDTH]) * PIXEL)
    evaluate = ("evaluate", MODEL, "--data", "grid.3ds", "--reference")
    found = said(*evaluate, "fine.npz", "--reference-bias", "-0.51", "--channel", "Current")
    assert found["metrics"]["reference_precision"] > 0.7
    assert found["metrics"]["reference_error_px"] < 0.6
    params = runs.get(connect(), found["run_id"]).params
    assert (params["reference_bias"], params["channel"]) == ("-0.51", "Current")
    np.save("small.npy", made.bound_state[:20, :20])
    for arguments, words in (
        ((*evaluate, "fine.npz"), "3 maps: expected the one map at the band bottom; choose it with --reference-bias V"),
        ((*evaluate, "small.npy"), "field of 20 x 20 of the measured file's pixels"),
        ((*evaluate, "known.csv", "--reference-bias", "-0.5"), "is a table of positions: leave it out"),
        (("evaluate", MODEL, "--data", "data.zarr", "--reference-bias", "-0.5"), "--reference-bias is -0.5: it is for"),
    ):
        Path("known.csv").write_text("x_px,y_px\n3,4\n")
        code, _, err = stm(*arguments)
        assert code == 2
        assert words in err


def test_tuning_looks_for_the_largest_f1(made):
    found = said(
        "tune", "impurity", "--preset", "test", "--data", "data.zarr", "--set", "tune.epochs=1;tune.pruner=none"
    )
    assert found["best"]["metric"] == "f1"
    trials = runs.find(connect(), "impurity", parent=found["parent"])
    values = [row.metrics["f1"] for row in trials]
    assert len(values) == 2
    assert found["best"]["value"] == max(values)
    assert runs.get(connect(), found["best"]["run_id"]).metrics["f1"] == max(values)
    assert runs.get(connect(), found["parent"]).metrics["best_f1"] == max(values)


def test_an_explanation_names_the_voltages(made):
    found = said("explain", MODEL, "grid.3ds", "--out", "why")
    count = found["answers"][0]["count"]
    assert count > 0
    names = {Path(path).name for path in found["files"]}
    assert {"prediction.json", "grid_positions.csv", "grid_overlay.png", "grid_voltages.csv"} <= names
    with Path("why/grid_voltages.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {int(row["impurity"]) for row in rows} == set(range(count))
    for one in range(count):
        own = [row for row in rows if int(row["impurity"]) == one]
        assert [float(row["bias_V"]) for row in own] == pytest.approx(made.bias)
        assert sum(float(row["core"]) + float(row["rings"]) for row in own) == pytest.approx(1, abs=1e-3)
    record = json.loads(Path("why/scores.json").read_text())
    (one,) = record["images"]
    assert record["reference"].startswith("zero")
    assert list(one["regions"]) == ["core", "rings", "elsewhere"]
    assert sum(one["methods"]["gradient"]["share"].values()) == pytest.approx(1)
    # The strongest impurity's score falls without its surroundings; what is far away hardly matters.
    lost = {name: -region["effect"] for name, region in one["regions"].items()}
    assert max(lost["core"], lost["rings"]) > max(
        3 * abs(lost["elsewhere"]), 0.1 * one["methods"]["gradient"]["answer"]
    )
    assert found["scores"]["gradient"]["deletion_beaten"] == 1


def table(folder):
    with (Path(folder) / "part_positions.csv").open() as file:
        rows = [[float(row[name]) for name in ("y_px", "x_px", "y_nm", "x_nm")] for row in csv.DictReader(file)]
    return np.array(rows)


def test_rows_that_were_never_scanned_move_nothing(made):
    """Zeros below: the table counts in the file's rows, and nm from the file's corner."""
    maps = made.maps.copy()
    maps[:, :8] = 0
    maps[:, 8, :11] = 0  # the scan stopped here, from the top
    size = np.array([HEIGHT, WIDTH]) * PIXEL
    np.savez("part.npz", data=maps, bias=made.bias, size_nm=size)
    found = said("predict", MODEL, "part.npz", "--out", "unfinished")
    assert any("9 of 40 rows" in note for note in found["answers"][0]["notes"])
    np.savez("part.npz", data=maps[:, 9:], bias=made.bias, size_nm=size * [31 / 40, 1])
    cut = said("predict", MODEL, "part.npz", "--out", "cut")
    assert not any("unfinished" in note for note in cut["answers"][0]["notes"])
    assert found["answers"][0]["count"] > 0
    np.testing.assert_allclose(table("unfinished"), np.add(table("cut"), [9, 0, 9 * PIXEL, 0]), atol=2e-3)
    np.testing.assert_allclose(table("unfinished")[:, 2:], (table("unfinished")[:, :2] + 0.5) * PIXEL, atol=2e-3)


def test_what_is_no_didv_is_refused_or_told(made):
    code, _, err = stm("predict", MODEL, "grid.3ds", "--channel", "Z")
    assert code == 2
    assert "grid.3ds[Z] is in m, which no map of dI/dV is" in err
    instrument_files.spectrum(Path("point.dat"), {"Bias calc (V)": made.bias, "LI Demod 1 X (A)": made.bias})
    code, _, err = stm("predict", MODEL, "point.dat")
    assert code == 2
    assert "spectrum at a single point" in err
    noted = said("predict", MODEL, "grid.3ds", "--channel", "Current")["answers"][0]["notes"]
    assert any("not known as a signal of dI/dV" in note for note in noted)
    assert not any("dI/dV" in note for note in said("predict", MODEL, "grid.3ds")["answers"][0]["notes"])


def test_notes_of_the_file_reach_the_answer(made):
    spectra = np.moveaxis(made.maps, 0, -1).copy()
    spectra[36:] = 0
    instrument_files.grid(
        Path("part.3ds"), {"LI Demod 1 X (A)": spectra}, bias=made.bias, size_nm=(HEIGHT * PIXEL, WIDTH * PIXEL)
    )
    found = said("predict", MODEL, "part.3ds", "--out", "noted")
    assert any("36 of 40 rows were recorded" in note for note in found["answers"][0]["notes"])
    written = json.loads(Path("noted/prediction.json").read_text())
    assert written["answers"][0]["notes"] == found["answers"][0]["notes"]


@pytest.mark.realdata
def test_a_real_grid_gets_positions_an_overlay_and_a_statement(made):
    """A grid of another material, with 200 biases: whatever is found, the answer says not to trust it."""
    named = os.environ.get("STM_REALDATA")
    if not named:
        pytest.skip("STM_REALDATA is not set: it names the folder with STS_grid_lockin.3ds")
    grid = next(iter(sorted(Path(named).rglob("STS_grid_lockin.3ds"))), None)
    if grid is None:
        pytest.skip(f"STM_REALDATA has no STS_grid_lockin.3ds: {named}")
    found = said("explain", MODEL, grid, "--out", "real")
    (answer,) = found["answers"]
    assert answer["inside"] is False
    assert "do not trust" in answer["verdict"]
    assert any("of 200 maps" in note for note in answer["notes"])
    assert any("interpolated" in note for note in answer["notes"])
    for one in answer["impurities"]:
        assert -0.5 <= one["x_px"] <= 29.5
        assert 0 <= one["y_nm"] <= 5.0
    assert {f"STS_grid_lockin_{end}" for end in ("positions.csv", "overlay.png")} <= {
        Path(path).name for path in found["files"]
    }


def test_the_server_answers_and_says_which_size_it_takes(made, monkeypatch):
    images = xarray.open_zarr("data.zarr").image.values[:2]
    with serving(MODEL) as client:
        found = client.infer(images, ("prediction", "distance"))
        expected = Session("model.onnx").run(images, ("prediction", "distance"))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4)
        body, length = encode_request(np.zeros((1, 3, HEIGHT, WIDTH), np.float32), ("prediction",))
        address = f"{client.url}/v2/models/stm-impurity/infer"
        request = urllib.request.Request(address, body, {HEADER: str(length)})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        assert refused.value.code == 400
        words = json.loads(refused.value.read())["error"]
        assert f"(1, 3, {HEIGHT}, {WIDTH}), expected (batch, 3, {SIDE}, {SIDE})" in words
        refused.value.close()
        with pytest.raises(InputError, match=rf"expected \(batch, 3, {SIDE}, {SIDE}\)"):
            client.infer(np.zeros((1, 3, HEIGHT, WIDTH), np.float32))
