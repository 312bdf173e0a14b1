"""Asking the demo's model about data sets, arrays and real-space maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
from scipy.io import savemat

from deploy.serving.session import Session
from stm_models.physics.moire.lattice import build, patch
from stm_models.tasks.registry import get


def answers(result):
    code, out, err = result
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)["answers"]


@pytest.fixture(scope="module")
def state(demo):
    """One simulated state: its image, and its LDOS as atoms of the patch (positions in a)."""
    data = xarray.open_zarr(demo.data)
    lattice = build(data.attrs["config"]["index"], data.attrs["config"]["layer_distance"])
    points, sites = patch(lattice, data.attrs["input"]["radius"])
    return data.image.values[7], points, data.ldos.values[7][sites], float(data.U[7])


def test_a_data_set_is_answered_row_by_row(command, demo):
    found = answers(command("predict", str(demo.onnx), str(demo.data), "--json"))
    data = xarray.open_zarr(demo.data)
    expected = Session(demo.onnx).run(data.image.values)["prediction"][:, 0]
    np.testing.assert_allclose([entry["U"]["value"] for entry in found], expected, rtol=1e-4, atol=1e-5)
    assert [entry["true"]["U"] for entry in found] == data.U.values.tolist()


def test_an_image_as_array(command, demo, state, tmp_path):
    np.save(tmp_path / "image.npy", state[0])
    one = answers(command("predict", str(demo.onnx), str(tmp_path / "image.npy"), "--json"))[0]
    assert one["U"]["value"] == pytest.approx(Session(demo.onnx).run(state[0][None])["prediction"][0, 0], rel=1e-5)
    assert one["inside"] is True


def test_text_columns_give_the_same_answer_as_the_simulation(command, demo, state, tmp_path):
    image, points, values, _ = state
    np.savetxt(tmp_path / "ldos.dat", np.column_stack([points, values]))
    one = answers(command("predict", str(demo.onnx), str(tmp_path / "ldos.dat"), "--json"))[0]
    expected = Session(demo.onnx).run(image[None])["prediction"][0, 0]
    assert one["U"]["value"] == pytest.approx(float(expected), abs=0.05)
    assert one["inside"] is True


def test_a_coarse_map_is_masked_and_said_to_lie_outside(command, demo, tmp_path):
    rng = np.random.default_rng(1)
    stack = 1 + 0.2 * rng.random((40, 40, 5))
    savemat(tmp_path / "stack.mat", {"m": stack, "v": np.linspace(0.1, -0.1, 5)})
    arguments = ("predict", str(demo.onnx), str(tmp_path / "stack.mat"), "--key", "m", "--bias", "-0.05",
                 "--size-nm", "20x20", "--explain", "gradient", "--out", str(tmp_path / "out"))  # fmt: skip
    one = answers(command(*arguments, "--json"))[0]
    assert one["masked"] > 0.5
    assert one["inside"] is False
    assert one["distance"] > Session(demo.onnx).metadata.distance.quantiles["1.0"]
    assert any("masked" in note for note in one["notes"])
    code, out, _ = command(*arguments)
    assert code == 0
    assert "do not trust" in out
    written = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert written["model"]["sha256"] == Session(demo.onnx).metadata.sha256
    assert list((tmp_path / "out").glob("*_gradient.png"))


def test_explain_writes_the_gradient_of_the_chosen_sample(command, demo, tmp_path):
    code, _, err = command("explain", demo.model, str(demo.data), "--sample", "5", "--out", str(tmp_path), "--json")
    assert code == 0, err
    array = np.load(tmp_path / "sample-00005_gradient.npy")
    image = xarray.open_zarr(demo.data).image.values[5:6]
    session = Session(demo.onnx)
    # A small step along the map changes the prediction by the map's square: it is a derivative.
    step = (0.005 * array / np.square(array).sum())[None]
    change = session.run(image + step)["prediction"] - session.run(image - step)["prediction"]
    assert change[0, 0] == pytest.approx(0.01, rel=0.1)


def test_distance_tells_simulated_states_from_other_images(demo):
    session = Session(demo.onnx)
    limit = session.metadata.distance.quantiles["1.0"]
    fresh = xarray.open_zarr(demo.folder / "demo-output" / "fresh-unseen.zarr").image.values
    noise = np.random.default_rng(0).random(fresh.shape).astype(np.float32)
    assert np.median(session.run(fresh, ["distance"])["distance"]) < 2 * limit
    assert session.run(noise, ["distance"])["distance"].min() > 10 * limit


def test_decode_says_outside_beyond_the_usual_distance():
    metadata = {"targets": [{"name": "U", "unit": "eV"}], "distance": {"quantiles": {"0.99": 2.0}}}
    outputs = {"prediction": np.array([[1.0], [2.0]]), "distance": np.array([1.9, 2.1])}
    found = get("hubbard").decode(outputs, metadata)
    assert [entry["inside"] for entry in found] == [True, False]
    assert found[1]["U"] == {"value": 2.0, "unit": "eV"}
