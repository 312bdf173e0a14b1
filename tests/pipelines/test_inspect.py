"""`stm inspect`: the pictures exist, are small, and their numbers are the physics' and the data's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image
from scipy.io import savemat

from pipelines.cli import main
from stm_models.data import opened
from stm_models.data.opened import OpenDataSet
from stm_models.physics.moire.branch import Branch
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.lattice import build
from stm_models.tasks import registry
from support.outcomes import refused
from tracking import runs
from tracking.store import connect

SETTINGS = [
    "simulate.interaction_count=3", "simulate.replicates=2", "simulate.index=[1, 2]", "simulate.image_size=24",
    "simulate.energies=[-0.1, 0, 0.1]", "simulate.branch=collinear", "simulate.starts=[fm]", "simulate.tolerance=1e-5",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of two structures, three energies and two spins, and what inspecting it left."""
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        sets = [word for setting in SETTINGS for word in ("--set", setting)]
        assert main(["simulate", "hubbard", "--preset", "test", "--out", "d.zarr", "--workers", "1", *sets]) == 0
        assert main(["inspect", "d.zarr", "--out", "out"]) == 0
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "out" / "inspect.json").read_text())


@pytest.fixture
def inspect(folder, monkeypatch, capsys):
    """Run the command in the data set's folder: exit code, stdout, stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*arguments):
        capsys.readouterr()
        code = main(["inspect", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_every_picture_is_a_small_png(folder, report):
    names = set(report["pictures"])
    assert names == {"images", "similarity", "components", "bands", "density_of_states", "ldos_map"}
    assert report["skipped"] == {}
    for file in [*report["pictures"].values(), "contact_sheet.png"]:
        path = folder / "out" / file
        assert path.stat().st_size <= 300_000
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 150
            assert len(picture.convert("RGB").getcolors(10**7)) > 20  # something is drawn
    assert not list((folder / "out").glob(".*"))


def test_the_report_says_what_was_looked_at(folder, report):
    data = OpenDataSet(folder / "d.zarr")
    assert report["digest"] == data.attributes["digest"]
    assert (report["samples"], report["groups"]) == (len(data), len(np.unique(data.coordinates["group"])))
    assert report["images_used"] == np.count_nonzero(data.coordinates["converged"])
    assert report["image_shape"] == [3, 24, 24]
    assert report["parameter"]["levels"] == [0, 3, 6]
    assert report["images"]["channels"] == ["-100 meV", "+0 meV", "+100 meV"]
    matrix = np.array(report["similarity"]["matrix"])
    assert matrix.shape == (3, 3)
    assert np.array_equal(np.diag(matrix), [1, 1, 1])
    assert report["metrics"]["lowest_similarity"] == matrix.min()
    assert 0.9 < sum(report["components"]["explained_variance"]) <= 1 + 1e-9
    assert np.shape(report["components"]["scores"])[0] == report["images_used"]


def test_bands_are_the_eigenvalues_of_the_stored_state(folder, report):
    data = OpenDataSet(folder / "d.zarr")
    bands = report["bands"]
    assert [corner["name"] for corner in bands["corners"]] == ["Γ", "M", "K", "Γ"]
    config = data.attributes["config"]
    for state in bands["states"]:
        row = data.row(state["sample"])
        lattice = build(int(row["index"]), row["layer_distance"])
        branch = create(
            "collinear", lattice, k_count=config["k_mesh"], temperature=config["temperature"],
            dielectric=config["dielectric"], interlayer_scale=config["interlayer_scale"],
        )  # fmt: skip
        stored = data.state(state["group"])
        arrays = {n: stored[n][tuple(slice(k) for k in s.shape)] for n, s in branch.state_arrays().items()}
        corners = lattice.high_symmetry()
        expected = branch.band_structure(arrays, row["U"], np.array([corners["Γ"], corners["K"]]))
        expected = expected.reshape(2, 2, lattice.size) - row["chemical_potential"]  # k, spin, band
        drawn = np.array(state["energies_eV"])
        assert len(drawn) == 2  # up and down
        distance = np.array(bands["distance_per_a"])
        at_k = np.argmin(np.abs(distance - bands["corners"][2]["distance"]))
        first = bands["first_band"]
        for point, place in ((0, 0), (1, at_k), (0, -1)):
            for spin in (0, 1):
                theirs = expected[point, spin, first : first + drawn.shape[2]]
                np.testing.assert_allclose(drawn[spin, place], theirs, atol=1e-7)


def test_the_density_of_states_holds_the_bands_it_shows(folder, report):
    dos = report["density_of_states"]
    energy = np.array(dos["energy_eV"])
    data = OpenDataSet(folder / "d.zarr")
    for state in dos["states"]:
        density = np.array(state["states_per_eV_and_cell"])
        assert state["chemical_potential_eV"] == data.row(state["sample"])["chemical_potential"]
        atoms = 4 * (3 * data.row(state["sample"])["index"] * (data.row(state["sample"])["index"] + 1) + 1)
        assert np.all(density >= 0)
        assert 2 < np.trapezoid(density, energy) <= 2 * atoms * 1.001


def test_the_density_of_states_keeps_a_saddle_that_the_data_set_kept(folder, monkeypatch):
    asked, solve = [], Branch.solve

    def noted(self, *state, **options):
        asked.append(options["leave_saddles"])
        return solve(self, *state, **options)

    monkeypatch.setattr(Branch, "solve", noted)
    data = OpenDataSet(folder / "d.zarr")
    data.attributes["config"] = {**data.attributes["config"], "leave_saddles": False}
    assert "density_of_states" in registry.get("hubbard").pictures(data).figures
    assert set(asked) == {False}


def test_the_map_is_the_stored_ldos_of_the_upper_layer(folder, report):
    data = OpenDataSet(folder / "d.zarr")
    shown = report["ldos_map"]
    assert shown["energy_from_bias_eV"] == 0
    for state in shown["states"]:
        row = data.row(state["sample"])
        lattice = build(int(row["index"]), row["layer_distance"])
        stored = data.read("ldos", np.array([state["sample"]]))[0, 1, : lattice.size]
        upper = stored[lattice.layer == 1]
        assert state["lowest"] == pytest.approx(upper.min(), rel=1e-5)
        assert state["highest"] == pytest.approx(upper.max(), rel=1e-5)


def test_marks_are_bragg_vectors_of_each_structure():
    task = registry.get("hubbard")
    row = {"index": 5.0, "layer_distance": 2.74, "strain": 0.0, "strain_angle": 0.0}
    moire, graphene = task.marks({}, row).values()
    length = np.sqrt(3 * 25 + 15 + 1)
    np.testing.assert_allclose(np.linalg.norm(moire, axis=1), 4 * np.pi / np.sqrt(3) / length, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(graphene, axis=1), 4 * np.pi / np.sqrt(3), rtol=1e-12)
    angles = np.degrees(np.arctan2(graphene[:, 1], graphene[:, 0])) % 60
    assert sorted(set(np.round(angles, 6))) == pytest.approx([30 - 6.009 / 2, 30 + 6.009 / 2], abs=1e-3)
    # Two graphene vectors, one of each layer, differ by a moiré vector; so they do under strain.
    for strain in (0.0, 0.01):
        moire, graphene = task.marks({}, {**row, "strain": strain, "strain_angle": 20.0}).values()
        gaps = graphene[:6][:, None] - graphene[6:][None]
        nearest = gaps[np.arange(6), np.linalg.norm(gaps, axis=2).argmin(axis=1)]
        for gap in nearest:
            assert np.linalg.norm(moire - gap, axis=1).min() < 1e-9
    assert task.marks({}, {"U": 1.0}) == {}


def test_a_run_with_the_data_set_is_recorded(folder, report, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = next(run for run in runs.find(connect(), "hubbard") if run.name == "inspect")
    assert found.status == "FINISHED"
    assert found.tags["data.inspection.digest"] == report["digest"]
    for name, value in report["metrics"].items():
        assert found.metrics[name] == pytest.approx(value)
    assert runs.download(connect(), found.id, "figures/contact_sheet.png").stat().st_size > 10_000
    assert json.loads(runs.download(connect(), found.id, "inspect.json").read_text())["digest"] == report["digest"]
    assert connect().client.get_run(found.id).inputs.dataset_inputs[0].dataset.name == "d"


def test_without_a_store_the_files_are_written(inspect, monkeypatch, tmp_path, folder):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    bare = without_states(folder, tmp_path)
    code, out, err = inspect(bare, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert len([line for line in err.splitlines() if line.startswith("warning: ")]) == 1
    result = json.loads(out)
    assert out.count("\n") == 1
    assert result["run_id"] is None
    assert Path(result["contact_sheet"]).is_absolute()
    assert Path(result["contact_sheet"]).stat().st_size > 10_000
    # Nothing but the images is there, as after an import.
    written = json.loads(Path(result["report"]).read_text())
    assert set(written["skipped"]) == {"marks", "bands", "density_of_states", "ldos_map"}
    assert set(written["pictures"]) == {"images", "similarity", "components"}


def without_states(folder, tmp_path):
    bare = tmp_path / "bare.zarr"
    shutil.copytree(folder / "d.zarr", bare)
    root = zarr.open_group(bare, mode="r+", use_consolidated=False)
    for name in [name for name in root.array_keys() if name == "ldos" or name.startswith("state_")]:
        del root[name]
    kept = [name for name in root.attrs["coordinates"].split() if name not in ("index", "strain")]
    root.attrs["coordinates"] = " ".join(kept)
    zarr.consolidate_metadata(bare, zarr_format=3)
    return bare


def test_imported_files_show_their_own_points(tmp_path, inspect, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    rng = np.random.default_rng(0)
    (tmp_path / "files").mkdir()
    sums = {}
    for count, interaction in ((300, 0.0), (280, 1.5), (320, 3.0)):
        points = rng.uniform(-9, 9, (count, 2))
        values = rng.uniform(0.1, 1, count)
        sums[interaction] = (count, values.mean())
        name = f"LDOS-Mu-I5-d2.74-eps10-nu+0.00-U{interaction:.5f}-s0.dat"
        np.savetxt(tmp_path / "files" / name, np.column_stack([points, values]))
    imported = tmp_path / "i.zarr"
    options = ["--image-size", "16"]
    assert main(["import", "ldos", str(tmp_path / "files"), "--out", str(imported), *options]) == 0
    assert inspect(imported, "--out", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert {"bands", "density_of_states"} <= set(report["skipped"])
    assert "ldos_map" in report["pictures"]
    assert len(report["ldos_map"]["states"]) == 3
    for state in report["ldos_map"]["states"]:
        count, mean = sums[state["U_eV"]]
        assert state["points"] == count
        assert state["mean"] == pytest.approx(mean, rel=1e-4)


def test_large_data_sets_are_sampled_evenly(folder, monkeypatch):
    data = OpenDataSet(folder / "d.zarr")
    rows = data.spread("U", most=6)
    assert len(rows) == 6
    assert data.coordinates["U"][rows].tolist() == [0, 0, 3, 3, 6, 6]
    monkeypatch.setattr(opened, "_MOST_BYTES", 5 * 3 * 24 * 24 * 4)
    assert len(data.spread("U", most=2000)) == 5


def test_a_measured_file(tmp_path, inspect):
    x = np.arange(40) * 0.25
    wave = 2 + np.cos(2 * np.pi * x / 2.0)[None, None, :] * np.ones((5, 32, 1)) * np.arange(1, 6)[:, None, None]
    np.savez(tmp_path / "a.npz", data=wave, bias=np.linspace(-0.2, 0.2, 5), size_nm=[8.0, 10.0])
    code, out, _ = inspect(tmp_path / "a.npz", "--out", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["run_id"] is None
    report = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert report["channels"] == 5
    assert report["pixels"] == {"height": 32, "width": 40}
    assert report["size_nm"] == {"height": 8.0, "width": 10.0}
    assert report["bias_V"] == pytest.approx([-0.2, -0.1, 0, 0.1, 0.2])
    assert report["statistics"]["highest"][4] == pytest.approx(7)
    peak = report["fourier"]["peaks"][2][0]
    assert peak["kx"] == pytest.approx(np.pi)  # a wavelength of 2 nm
    assert peak["ky"] == pytest.approx(0, abs=1e-9)
    assert peak["magnitude"] == pytest.approx(1.5, rel=0.01)
    assert report["fourier"]["unit"] == "1/nm"
    assert len(report["unknown"]) == 1
    for name in ("map.png", "fourier.png", "contact_sheet.png"):
        assert (tmp_path / "out" / name).stat().st_size > 3000


def test_what_a_file_does_not_say_is_said(tmp_path, inspect):
    savemat(tmp_path / "a.mat", {"m": np.random.default_rng(0).random((16, 16, 9))})
    code, out, _ = inspect(tmp_path / "a.mat", "--out", tmp_path / "out")
    assert code == 0
    assert "--size-nm" in out
    assert "bias: the file does not state it" in out
    assert "9 channels of 16 x 16 pixels of unknown size" in out
    assert json.loads((tmp_path / "out" / "inspect.json").read_text())["fourier"]["unit"] == "rad/pixel"


def test_scattered_points(tmp_path, inspect):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "a.dat", np.column_stack([rng.uniform(-20, 20, (500, 2)), rng.random(500)]))
    assert inspect(tmp_path / "a.dat", "--out", tmp_path / "out")[0] == 0
    assert json.loads((tmp_path / "out" / "inspect.json").read_text())["points"] == 500


def test_what_cannot_be_inspected(inspect, tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png.bz").write_bytes(b"x")
    refused(inspect("none.zarr", "--out", tmp_path / "o"), "none.zarr")
    refused(inspect("none.npy", "--out", tmp_path / "o"), "none.npy", "does not exist")
    refused(inspect(tmp_path / "empty", "--out", tmp_path / "o"), "empty folder")
    refused(inspect(tmp_path / "a.png.bz", "--out", tmp_path / "o"), ".bz", ".npy")
    refused(inspect("d.zarr", "--out", tmp_path / "o", "--key", "m"), "--key", "data set")
    refused(inspect("d.zarr", "--out", "d.zarr/pictures"), "inside the data set")
    refused(inspect("d.zarr", "--out", tmp_path / "a.png.bz"), "a.png.bz", "--out")
    np.save(tmp_path / "a.npy", np.full((9, 9), np.nan))
    refused(inspect(tmp_path / "a.npy", "--out", tmp_path / "o"), "NaN")
    np.save(tmp_path / "a.npy", np.ones((9, 9)))
    refused(inspect(tmp_path / "a.npy", "--out", tmp_path / "o", "--size-nm", "big"), "HEIGHTxWIDTH")
    cut = shutil.copytree(folder / "d.zarr", tmp_path / "cut.zarr")
    chunk = next(path for path in sorted((cut / "image").iterdir()) if path.name.startswith("c"))
    chunk.write_bytes(chunk.read_bytes()[:40])
    refused(inspect(cut, "--out", tmp_path / "o"), "cut.zarr", "damaged")
    root = zarr.open_group(tmp_path / "cut.zarr", mode="r+")
    root.attrs["complete"] = False
    refused(inspect(cut, "--out", tmp_path / "o"), "not finished")
    assert not (tmp_path / "o").exists()
