"""A user's mistake: one line on stderr that names the value and the way out, exit code 2, nothing lost."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from support.outcomes import refused


def test_a_configuration_that_is_no_yaml(command, tmp_path):
    (tmp_path / "deep.yaml").write_text("train: " + "[" * 5000)
    (tmp_path / "date.yaml").write_text("train: {seed: 2024-13-45}")
    for name in ("deep.yaml", "date.yaml"):
        words = ("simulate", "hubbard", "--out", "x.zarr", "--config", str(tmp_path / name))
        refused(command(*words), name, "no valid YAML")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulat"], ["simulat", "simulate", "doctor"]),
        (["simulate", "hubard", "--out", "x.zarr"], ["hubard", "choose from hubbard"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--preset", "huge"], ["huge", "quick", "test"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.kmesh=3"], ["kmesh", "k_mesh"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulation.k_mesh=3"], ["simulation", "simulate"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.k_mesh=0"], ["k_mesh", "0", "1"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.index=0"], ["index", "0", "1"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.interaction=[-1, 2]"], ["-1", "0 eV"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.bias=[.nan, 1]"], ["bias", "nan"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "draws"], ["draws", "section.key=value"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.draws=0x_"], ["0x_", "no valid YAML"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.seed=2024-13-45"], ["2024-13-45", "YAML"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--set", "simulate.bias=" + "[" * 5000], ["no valid YAML"]),
        (["lineage", "n" * 300], ["n" * 60]),
        (["export", "0123", "--out", "x.onnx", "--set", "export=3"], ["export is 3", "export.KEY=VALUE"]),
        (["promote", "hubbard", "--set", "train.epochs=5"], ["train", "promote"]),
        (["tune", "hubbard", "--data", "none.zarr", "--seeds", "1"], ["--seeds is 1", "at least 2"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--executor", "moon"], ["moon", "local"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--workers", "0"], ["0", "--workers 1"]),
        (["simulate", "hubbard", "--out", "x.zarr", "--config", "none.yaml"], ["none.yaml"]),
        (["train", "hubbard", "--data", "none.zarr"], ["none.zarr"]),
        (["promote", "hubbard", "--run", "0123"], ["0123"]),
        (["export", "0123", "--out", "x.onnx"], ["0123"]),
        (["predict", "models:/stm-hubbard@king", "x.npy"], ["king", "champion"]),
        (["predict", "models:/nothing@champion", "x.npy"], ["nothing", "stm-hubbard"]),
        (["predict", "none.onnx", "x.npy"], ["none.onnx"]),
        (["serve", "none.onnx"], ["none.onnx"]),
        (["evaluate", "models:/stm-hubbard@champion", "--data", "none.zarr"], ["none.zarr"]),
    ],
    ids=lambda value: " ".join(value[:1] + value[-1:]) if isinstance(value, list) else "",
)
def test_what_does_not_exist_or_cannot_be(command, arguments, words):
    refused(command(*arguments), *words)
    assert not Path("x.zarr").exists()


def test_unknown_network_option_and_loss(command, demo):
    data = str(demo.data)
    refused(command("train", "hubbard", "--data", data, "--preset", "test", "--model", "resnt"), "resnt", "conv", "mlp")
    refused(
        command("train", "hubbard", "--data", data, "--preset", "test", "--set", "train.loss=focal_heat"),
        "focal_heat", "mse", "huber",
    )  # fmt: skip
    refused(
        command("train", "hubbard", "--data", data, "--preset", "test", "--set", "train.options={depth: 3}"),
        "depth", "hidden",
    )  # fmt: skip


def test_empty_truncated_and_altered_stores(command, demo, tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    refused(command("train", "hubbard", "--data", str(tmp_path / "empty.zarr")), "empty.zarr")
    cut = shutil.copytree(demo.data, tmp_path / "cut.zarr")
    chunk = next(path for path in sorted((cut / "image").iterdir()) if path.name.startswith("c"))
    chunk.write_bytes(chunk.read_bytes()[:100])
    refused(command("train", "hubbard", "--data", str(cut)), "cut.zarr")
    chunk.unlink()
    refused(command("train", "hubbard", "--data", str(cut)), "cut.zarr")


def test_a_data_set_whose_content_is_not_what_its_digest_says(command, demo, tmp_path):
    import zarr

    altered = shutil.copytree(demo.data, tmp_path / "altered.zarr")
    zarr.open_group(altered, mode="r+")["image"][3] += 0.01
    refused(command("train", "hubbard", "--preset", "test", "--data", str(altered)), "altered.zarr", "digest")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((32, 32), np.nan), ["NaN"]),
        (np.zeros((16, 16)), ["(1, 16, 16)", "(1, 32, 32)", "--size-nm"]),
        (np.zeros((2, 2, 2, 2)), ["(2, 2, 2, 2)"]),
        (np.array(["a"]), ["array.npy"]),
    ],
)
def test_arrays_that_are_no_image(command, demo, tmp_path, array, words):
    np.save(tmp_path / "array.npy", array)
    refused(command("predict", str(demo.onnx), str(tmp_path / "array.npy")), *words)


def test_files_that_are_something_else(command, demo, tmp_path):
    for name, content in (("a.npy", b"not numpy"), ("b.mat", b""), ("c.txt", b"1 2\n3 x"), ("d.jpg", b"x")):
        (tmp_path / name).write_bytes(content)
        refused(command("predict", str(demo.onnx), str(tmp_path / name)), name)
    (tmp_path / "e.onnx").write_bytes(demo.onnx.read_bytes()[:1000])
    refused(command("predict", str(tmp_path / "e.onnx"), str(demo.data)), "e.onnx")


def test_settings_of_an_export_that_do_not_exist(command, demo):
    ask = ("export", demo.result["best_run"], "--out", "a.onnx", "--set")
    refused(command(*ask, "export.explanations=[lime]"), "lime", "grad_cam")
    refused(command(*ask, "export.ig_step=3"), "ig_step", "ig_steps")
    refused(command(*ask, "train.epochs=3"), "train", "export")


def test_sizes_and_explanations_that_do_not_exist(command, demo, tmp_path):
    np.save(tmp_path / "map.npy", np.random.default_rng(0).random((20, 20)))
    arguments = ("predict", str(demo.onnx), str(tmp_path / "map.npy"))
    refused(command(*arguments, "--size-nm", "0x3"), "0x3", "HEIGHTxWIDTH")
    refused(command(*arguments, "--size-nm", ""), "--size-nm", "HEIGHTxWIDTH")
    refused(command(*arguments, "--size-nm", "3x3", "--rotate", "north"), "--rotate is 'north'", "degrees")
    refused(command(*arguments, "--size-nm", "3x3", "--rotate", "nan"), "--rotate is 'nan'", "degrees")
    refused(command(*arguments, "--size-nm", "3x3", "--atom-width", "0.6"), "--atom-width is '0.6'", "nm")
    refused(command(*arguments, "--size-nm", "3x3", "--explain", "shap", "--out", "never_made"), "shap", "gradient")
    refused(command(*arguments, "--size-nm", "3x3", "--explain", "gradient"), "--explain gradient", "--out DIR")
    assert not Path("never_made").exists()
    refused(command("predict", str(demo.onnx), str(demo.data), "--sample", "100000"), "100000", "samples 0 to")


@pytest.mark.parametrize(
    "option",
    [
        ("--key", "m"),
        ("--size-nm", "3x3"),
        ("--bias", "0"),
        ("--channel", "0"),
        ("--rotate", "3"),
        ("--atom-width", "0"),
    ],
)
def test_options_of_files_do_not_apply_to_data_sets(command, demo, option):
    for name, *more in (("predict",), ("explain", "--out", "never_made")):
        refused(command(name, str(demo.onnx), str(demo.data), *option, *more), option[0], "leave it out")
    assert not Path("never_made").exists()


def test_sample_does_not_apply_to_files(command, demo, tmp_path):
    np.save(tmp_path / "image.npy", np.ones((32, 32)))
    for name, *more in (("predict",), ("explain", "--out", "never_made")):
        given = (name, str(demo.onnx), str(tmp_path / "image.npy"), "--sample", "0", *more)
        refused(command(*given), "--sample is 0", "image.npy", "leave it out")
    refused(command("predict", str(demo.onnx), "none.npy", "--sample", "0"), "none.npy does not exist")


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("task", "strain", ["task is strain", "the model's is hubbard"]),
        ("targets", [{"name": "bias", "unit": "eV", "description": ""}], ["unknown target", "'U'", "bias"]),
        ("targets", [{"name": "U", "unit": "meV", "description": ""}], ["U (meV)", "U (eV)"]),
    ],
)
def test_data_sets_of_another_task(command, demo, tmp_path, attribute, value, words):
    import zarr

    other = shutil.copytree(demo.data, tmp_path / "other.zarr")
    zarr.open_group(other, mode="r+").attrs[attribute] = value
    refused(command("predict", str(demo.onnx), str(other)), "other.zarr", *words)
    refused(command("evaluate", str(demo.onnx), "--data", str(other)), "other.zarr", *words)


def test_asking_about_an_altered_data_set(command, demo, tmp_path):
    import zarr

    altered = shutil.copytree(demo.data, tmp_path / "altered.zarr")
    zarr.open_group(altered, mode="r+")["image"][3] += 0.01
    refused(command("predict", str(demo.onnx), str(altered), "--sample", "0"), "altered.zarr", "digest")
    refused(command("evaluate", str(demo.onnx), "--data", str(altered)), "altered.zarr", "digest")


@pytest.mark.parametrize("kind", ["mat", "npz"])
def test_a_map_of_the_models_shape_is_no_image(command, demo, tmp_path, kind):
    values = 1 + np.random.default_rng(0).random((32, 32))
    path = str(tmp_path / f"map.{kind}")
    if kind == "mat":
        savemat(path, {"data": values})
    else:
        np.savez(path, data=values)
    refused(command("predict", str(demo.onnx), path), "map", "--size-nm")


def test_output_that_cannot_be_written(command, demo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    below = str(tmp_path / "file" / "x.zarr")
    refused(command("simulate", "hubbard", "--preset", "test", "--out", below), "file")
    refused(command("predict", str(demo.onnx), str(demo.data), "--sample", "0", "--out", below), "--out")
    refused(command("export", demo.result["best_run"], "--out", str(tmp_path / "file" / "m.onnx")), "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_tracking_store_that_does_not_answer(command, demo, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for words in (
        ("promote", "hubbard"),
        ("evaluate", demo.model, "--data", str(demo.data)),
        ("compare", "--port", "0"),
    ):
        refused(command(*words), "http://127.0.0.1:9")


def test_port_in_use(command, demo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(command("serve", str(demo.onnx), "--port", port), port, "--port")
        refused(command("compare", "--port", port), port, "--port")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_pages_without_login_stay_on_this_machine(command, demo, host):
    refused(command("compare", "--host", host, "--port", "0"), host, "expected 127.0.0.1")
    refused(command("serve", str(demo.onnx), "--host", host, "--port", "0"), host, "--token-file")


def test_full_disk_keeps_what_is_there_and_continues(command, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    arguments = ("simulate", "hubbard", "--preset", "test", "--out", str(small / "x.zarr"), "--workers", "1")
    try:
        refused(command(*arguments), "full", "run the same command again")
        subprocess.run(["mount", "-o", "remount,size=50m", small], check=True)
        code, out, err = command(*arguments, "--json")
        assert code == 0, err
        assert '"groups": 54' in out
    finally:
        subprocess.run(["umount", "-l", small], check=False)
