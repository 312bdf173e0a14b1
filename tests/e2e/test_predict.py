"""Asking the demo's model about data sets, arrays and real-space maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray
from scipy.io import savemat

from deploy.model.session import Session
from stm_models.tasks.hubbard.structure import GEOMETRY, imaged_atoms


def answers(result):
    code, out, err = result
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)["answers"]


@pytest.fixture(scope="module")
def state(demo):
    """One simulated state: its image, and its LDOS as atoms of the patch (positions in a)."""
    data = xarray.open_zarr(demo.data)
    atoms = imaged_atoms(data.attrs, {name: float(data[name][7]) for name in GEOMETRY})
    return data.image.values[7], atoms.positions, data.ldos.values[7, 0, atoms.copies], float(data.U[7])


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
    (note,) = one["notes"]
    assert "as it is" in note
    assert Session(demo.onnx).metadata.input.unit in note


@pytest.mark.parametrize("kind", ["npy", "mat", "npz"])
def test_a_map_with_a_size_is_transformed_even_in_the_models_shape(command, demo, tmp_path, kind):
    values = 1 + np.random.default_rng(0).random((32, 32))
    path = tmp_path / f"map.{kind}"
    if kind == "mat":
        savemat(path, {"data": values})
    elif kind == "npz":
        np.savez(path, data=values)
    else:
        np.save(path, values)
    one = answers(command("predict", str(demo.onnx), str(path), "--size-nm", "5x5", "--json"))[0]
    assert any("Pixels are" in note for note in one["notes"])
    assert not any("as it is" in note for note in one["notes"])


def test_a_map_is_turned_before_it_is_transformed(command, demo, tmp_path):
    values = 1 + np.random.default_rng(0).random((64, 64))
    for name, array in (("map", values), ("quarter", np.rot90(values))):  # rows run upwards: a quarter turn clockwise
        np.save(tmp_path / f"{name}.npy", array)
    given = ("predict", str(demo.onnx), "--size-nm", "12x12", "--json")
    straight, turned, back = (
        answers(command(*given, str(tmp_path / name), *more))[0]
        for name, *more in (("map.npy",), ("quarter.npy",), ("quarter.npy", "--rotate", "90"))
    )
    assert back["U"]["value"] == pytest.approx(straight["U"]["value"], abs=1e-3)
    assert turned["U"]["value"] != pytest.approx(straight["U"]["value"], abs=1e-3)
    assert any("--rotate" in note for note in straight["notes"])


def test_text_columns_give_the_same_answer_as_the_simulation(command, demo, state, tmp_path):
    image, points, values, _ = state
    np.savetxt(tmp_path / "ldos.dat", np.column_stack([points, values]))
    one = answers(command("predict", str(demo.onnx), str(tmp_path / "ldos.dat"), "--json"))[0]
    expected = Session(demo.onnx).run(image[None])["prediction"][0, 0]
    assert one["U"]["value"] == pytest.approx(float(expected), abs=0.05)
    assert one["inside"] is True


@pytest.mark.parametrize("middle", [(0.0, 0.0), (1.7, -1.1)])  # a: what lies there, from an AA region
def test_a_raster_of_atoms_gives_the_same_answer_as_the_simulation(command, demo, state, tmp_path, middle):
    """Atoms half an ångström wide on a lattice that goes on beyond the model's disc, against the same taken for points.

    It does not matter where the scan lay on the moiré lattice. What the disc cuts of atoms at its rim shows in so small
    a cell, whose images hardly depend on U.
    """
    data = xarray.open_zarr(demo.data)
    wider = {**data.attrs["config"], "patch_radius": 2.5 * data.attrs["config"]["patch_radius"]}
    atoms = imaged_atoms({**data.attrs, "config": wider}, {name: float(data[name][7]) for name in GEOMETRY})
    values = data.ldos.values[7, 0, atoms.copies] * atoms.layer_weight
    half, width = 1.3 * data.attrs["input"]["radius"] + 2.0, 0.05 / 0.246
    centres = np.linspace(-half, half, 501)[:-1] + half / 500
    places = (atoms.positions - middle).T[::-1]
    y, x = (np.exp(-((centres[:, None] - one) ** 2) / (2 * width**2)) for one in places)
    np.savez(tmp_path / "map.npz", data=((y * values) @ x.T)[None], size_nm=np.full(2, 2 * half * 0.246))
    asked = ("predict", str(demo.onnx), str(tmp_path / "map.npz"), "--json")
    right, bare = (answers(command(*asked, "--atom-width", text))[0] for text in ("0.05", "0"))
    expected = Session(demo.onnx).run(state[0][None])["prediction"][0, 0]
    error, error_bare = (abs(one["U"]["value"] - float(expected)) for one in (right, bare))
    assert error < 0.25 * error_bare
    assert right["inside"] is True
    assert bare["inside"] is False
    assert any("Gaussians of 0.05 nm" in note for note in right["notes"])
    assert not any("Gaussians" in note for note in bare["notes"])


def test_a_coarse_map_is_masked(command, demo, tmp_path):
    rng = np.random.default_rng(1)
    stack = 1 + 0.2 * rng.random((40, 40, 5))
    savemat(tmp_path / "stack.mat", {"m": stack, "v": np.linspace(0.1, -0.1, 5)})
    arguments = ("predict", str(demo.onnx), str(tmp_path / "stack.mat"), "--key", "m", "--bias", "-0.05",
                 "--size-nm", "20x20", "--explain", "gradient", "--out", str(tmp_path / "out"))  # fmt: skip
    one = answers(command(*arguments, "--json"))[0]
    assert one["masked"] > 0.5
    assert one["verdict"]
    assert any("masked" in note for note in one["notes"])
    code, out, _ = command(*arguments)
    assert code == 0
    assert one["verdict"] in out
    written = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert written["model"]["sha256"] == Session(demo.onnx).metadata.sha256
    assert list((tmp_path / "out").glob("*_gradient.png"))


def test_a_map_of_noise_is_said_to_lie_outside(command, demo, tmp_path):
    stack = 1 + 0.2 * np.random.default_rng(1).random((40, 40, 5))
    savemat(tmp_path / "stack.mat", {"m": stack, "v": np.linspace(0.1, -0.1, 5)})
    arguments = ("predict", str(demo.onnx), str(tmp_path / "stack.mat"), "--key", "m", "--bias", "-0.05")
    one = answers(command(*arguments, "--size-nm", "20x20", "--out", str(tmp_path / "out"), "--json"))[0]
    assert one["inside"] is False
    assert one["distance"] > Session(demo.onnx).metadata.distance.quantiles["1.0"]
    assert "do not trust" in one["verdict"]


def test_images_of_noise_lie_far_beyond_all_held_out_ones(demo):
    session = Session(demo.onnx)
    fresh = xarray.open_zarr(demo.folder / "demo-output" / "fresh-unseen.zarr").image.values
    noise = np.random.default_rng(0).random(fresh.shape).astype(np.float32)
    assert session.run(noise, ["distance"])["distance"].min() > 10 * session.metadata.distance.quantiles["1.0"]


def test_other_channels_of_a_stack_may_hold_nan(command, demo, tmp_path):
    stack = 1 + 0.2 * np.random.default_rng(1).random((3, 40, 40))
    np.save(tmp_path / "alone.npy", stack[1])
    stack[0, 5, 5] = np.nan
    np.save(tmp_path / "stack.npy", stack)
    np.savez(tmp_path / "stack.npz", data=stack, bias=np.array([-0.1, 0.0, 0.1]), size_nm=np.array([20.0, 20.0]))
    ask = ("predict", str(demo.onnx), "--size-nm", "20x20", "--json")
    alone = answers(command(*ask, str(tmp_path / "alone.npy")))[0]
    by_number = answers(command(*ask, str(tmp_path / "stack.npy"), "--channel", "1"))[0]
    by_bias = answers(command("predict", str(demo.onnx), "--json", str(tmp_path / "stack.npz"), "--bias", "0"))[0]
    assert by_number["U"] == by_bias["U"] == alone["U"]
    code, _, err = command(*ask, str(tmp_path / "stack.npy"), "--channel", "0")
    assert code == 2
    assert "NaN" in err


def test_inputs_of_one_name_are_kept_apart(command, demo, state, tmp_path):
    paths = []
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / ("map-1.npy" if folder == "c" else "map.npy"))
        np.save(paths[-1], state[0] * (1 + 0.1 * len(paths)))
    out = tmp_path / "out"
    found = answers(command("predict", str(demo.onnx), *map(str, paths), "--out", str(out), "--json"))
    assert sorted(path.name for path in out.iterdir()) == ["map-1", "map-2", "map-3"]
    for folder, entry in zip(("map-2", "map-3", "map-1"), found, strict=True):
        assert json.loads((out / folder / "prediction.json").read_text())["answers"] == [entry]
    assert len({entry["U"]["value"] for entry in found}) == 3


def test_only_the_first_maps_are_written_and_that_is_said(command, demo, tmp_path):
    ask = ("predict", str(demo.onnx), str(demo.data), "--explain", "gradient", "--out", str(tmp_path))
    code, out, err = command(*ask, "--json")
    assert code == 0, err
    result = json.loads(out)
    total = len(result["answers"])
    assert total > 16
    (note,) = result["notes"]
    assert f"first 16 of {total}" in note
    assert "--sample" in note
    assert len(list(tmp_path.glob("*_gradient.npy"))) == len(list(tmp_path.glob("*_gradient.png"))) == 16
    last = np.load(tmp_path / "sample-00015_gradient.npy")
    images = xarray.open_zarr(demo.data).image.values[15:16]
    expected = Session(demo.onnx).run(images, ["gradient"])["gradient"][0]
    np.testing.assert_allclose(last, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert note in command(*ask)[1]
    assert json.loads(command(*ask, "--sample", "20", "--json")[1])["notes"] == []


def test_of_several_inputs_those_that_cannot_be_answered_are_told_and_the_others_are_answered(
    command, demo, state, tmp_path
):
    np.save(tmp_path / "good.npy", state[0])
    np.save(tmp_path / "bad.npy", np.full_like(state[0], np.nan))
    ask = ("predict", str(demo.onnx), *(str(tmp_path / name) for name in ("bad.npy", "good.npy", "absent.npy")))
    code, out, err = command(*ask, "--out", str(tmp_path / "out"), "--json")
    result = json.loads(out)
    assert code == 2
    assert [entry["name"] for entry in result["answers"]] == ["good"]
    assert [Path(file).parent.name for file in result["files"]] == ["good"]
    assert ["bad.npy" in result["unanswered"][0], "absent.npy" in result["unanswered"][1]] == [True, True]
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        f"error: {reason}" for reason in result["unanswered"]
    ]
    code, out, _ = command(*ask)
    assert (code, out.count("good: ")) == (2, 1)


def test_explain_takes_the_first_sample_of_a_data_set_and_any_file(command, demo, state, tmp_path):
    np.save(tmp_path / "image.npy", state[0])
    for source, name in ((demo.data, "sample-00000"), (tmp_path / "image.npy", "image")):
        out = tmp_path / f"why {name}"
        code, said, err = command("explain", str(demo.onnx), str(source), "--out", str(out), "--json")
        assert code == 0, err
        result = json.loads(said)
        assert [entry["name"] for entry in result["answers"]] == [name]
        files = ["prediction.json", f"{name}_gradient.npy", f"{name}_gradient.png"]
        # A single file says nothing of what an absent pixel looks like.
        scores = ["scores.png", "scores.json"] if source == demo.data else []
        assert [Path(file).name for file in result["files"]] == files + scores


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
    fresh = xarray.open_zarr(demo.folder / "demo-output" / "fresh-unseen.zarr").image.values
    noise = np.random.default_rng(0).random(fresh.shape).astype(np.float32)
    chance = session.run(fresh, ["novelty"])["novelty"]
    assert np.mean(chance < 0.05) < 0.5
    assert np.median(chance) > 0.1
    assert session.run(noise, ["novelty"])["novelty"].max() < 0.05
    assert session.run(noise, ["distance"])["distance"].min() > session.metadata.distance.quantiles["0.95"]


def test_an_answer_has_an_interval_that_was_calibrated_on_states_of_its_own(demo):
    fresh = xarray.open_zarr(demo.folder / "demo-output" / "fresh-unseen.zarr")
    session = Session(demo.onnx)
    found = session.run(fresh.image.values, ["prediction", "lower", "upper"])
    assert (found["lower"] < found["prediction"]).all()
    assert (found["prediction"] < found["upper"]).all()
    inside = (found["lower"][:, 0] <= fresh.U.values) & (fresh.U.values <= found["upper"][:, 0])
    assert inside.mean() > 0.5
    about = session.metadata.as_dict()
    assert about["interval"]["level"] == 0.9
    assert about["interval"]["sets"] == ["clean", "mild"]
    (path,) = demo.data.parent.glob("data.calibration-*.zarr")
    assert about["interval"]["digest"] == xarray.open_zarr(path).attrs["digest"] != demo.result["digest"]
    assert {"coverage", "mild.coverage", "width", "false_alarms", "mild.false_alarms"} <= set(about["metrics"])
