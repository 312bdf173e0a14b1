"""Data sets to other people's files and back: values, labels, states; and what cannot be converted."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.cli import main
from pipelines.learning.fitting import load_parts
from pipelines.lease import only_writer
from pipelines.settings import SplitConfig
from stm_models.data.dataset import load
from stm_models.data.readers import read
from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid
from stm_models.physics.moire.lattice import build, patch
from stm_models.signal.real_map import to_ft_image
from support import random_ldos

SIZE, TASK, config_of, make = random_ldos.SIZE, random_ldos.TASK, random_ldos.config_of, random_ldos.make


@pytest.fixture(scope="module")
def texts(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("texts") / "ldos"
    assert main(["convert", str(data), "--to", "ldos", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def pictures(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures") / "png"
    assert main(["convert", str(data), "--to", "images", "--out", str(out)]) == 0
    return out


def by_file(folder: Path, samples) -> list[int]:
    """Rows of the original, in the order in which an import takes the folder's files."""
    rows = {row["file"]: int(row["sample"]) for row in csv.DictReader((folder / "manifest.csv").open())}
    return [rows[name] for name in sorted(rows)]


def same_partition(one, two) -> bool:
    pairs = set(zip(one.tolist(), two.tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_text_comes_back_as_it_was(stm, data, texts, tmp_path):
    code, out, _ = stm("import", "ldos", texts, "--out", tmp_path / "back.zarr", "--image-size", SIZE, "--json")
    assert code == 0
    ours, back = load(data, verify=True), load(tmp_path / "back.zarr", verify=True)
    order = by_file(texts, ours)
    assert json.loads(out)["groups"] == 10
    assert np.abs(back.images - ours.images[order]).max() < 1e-6
    assert np.array_equal(back.targets, ours.targets[order])
    assert same_partition(back.coordinates["group"], ours.coordinates["group"][order])
    for name in ("filling", "index", "layer_distance", "bias", "broadening", "gap"):
        assert np.array_equal(back.coordinates[name], ours.coordinates[name][order]), name
    assert {"filling", "gap"} <= {target["name"] for target in back.attributes["possible_targets"]}
    assert "bias" not in {target["name"] for target in back.attributes["possible_targets"]}
    spec, own = back.attributes["input"], ours.attributes["input"]
    assert {key: spec[key] for key in spec} == {key: own[key] for key in spec} | {
        "radius": pytest.approx(own["radius"])
    }


@pytest.mark.parametrize("convention", ["ldos", "images"])
def test_what_a_chain_shares_is_refused_of_a_copy_too(stm, tmp_path, convention):
    data = make(tmp_path / "ours.zarr", config_of(layer_distance=(2.6, 2.9), interaction_count=3, replicates=4))
    assert stm("convert", data, "--to", convention, "--out", tmp_path / "files")[0] == 0
    code, out, err = stm("import", convention, tmp_path / "files", "--out", tmp_path / "back.zarr", "--json")
    assert code == 0, err
    ours, back = load(data), load(tmp_path / "back.zarr")
    assert json.loads(out)["groups"] == 12
    order = by_file(tmp_path / "files", ours)
    for name in ("chain", "group"):
        assert same_partition(back.coordinates[name], ours.coordinates[name][order])
    with pytest.raises(InputError, match=r"'layer_distance' .* is the same for all states of a chain"):
        load_parts(tmp_path / "back.zarr", TASK, SplitConfig(), ["layer_distance"])


def test_text_without_the_manifest_needs_the_radius(stm, data, texts, tmp_path):
    folder = copied(texts, tmp_path / "alone")
    (folder / "manifest.csv").unlink()
    radius = load(data).attributes["input"]["radius"]
    usual = ("import", "ldos", folder, "--image-size", SIZE, "--out")
    assert stm(*usual, tmp_path / "back.zarr", "--radius", radius)[0] == 0
    ours, back = load(data), load(tmp_path / "back.zarr")
    order = by_file(texts, ours)
    assert np.abs(back.images - ours.images[order]).max() < 1e-6
    assert np.array_equal(back.targets, ours.targets[order].round(5))
    assert same_partition(back.coordinates["group"], ours.coordinates["group"][order])
    assert np.array_equal(back.coordinates["filling"], ours.coordinates["filling"][order].round(2))
    # As it is, the disc ends at its farthest atom: close, and no more.
    assert stm(*usual, tmp_path / "near.zarr")[0] == 0
    assert 1e-6 < np.abs(load(tmp_path / "near.zarr").images - ours.images[order]).max() < 0.05


def test_a_file_holds_every_atom_of_the_disc_as_the_tip_sees_it(data, texts):
    ours = load(data)
    name = next(row["file"] for row in csv.DictReader((texts / "manifest.csv").open()) if row["sample"] == "5")
    table = np.loadtxt(texts / name)
    radius = ours.attributes["input"]["radius"]
    lattice = build(2, 2.75)
    points, copies = patch(lattice, radius)
    assert np.abs(table[:, :2] - points).max() < 1e-9
    below = lattice.layer[copies] == 0
    assert table[below, 2].max() < 0.3 + 1e-6 < 0.9 < table[~below, 2].max()
    assert f"-U{ours.targets[5, 0]:.5f}-" in name


def test_the_reader_of_predict_makes_the_same_image_of_a_file(data, texts):
    ours = load(data)
    order = by_file(texts, ours)
    spec = ours.attributes["input"]
    raw = read(sorted(texts.glob("*.dat"))[3])
    image, _, _ = to_ft_image(raw, KGrid(SIZE), envelope=spec["envelope"], radius=spec["radius"])
    assert np.abs(image - ours.images[order[3], 0]).max() < 1e-6


def test_structures_of_different_size(stm, tmp_path):
    several = {"index": [1, 2], "layer_distance": [2.7, 2.8], "strain": [0.0, 0.05]}
    data = make(tmp_path / "ours.zarr", config_of(**several, interaction_count=2, replicates=4))
    assert stm("convert", data, "--to", "ldos", "--out", tmp_path / "ldos")[0] == 0
    lines = {len(path.read_text().splitlines()) for path in (tmp_path / "ldos").glob("*.dat")}
    assert len(lines) > 1
    assert stm("import", "ldos", tmp_path / "ldos", "--out", tmp_path / "b.zarr", "--image-size", SIZE)[0] == 0
    ours, back = load(data), load(tmp_path / "b.zarr", verify=True)
    assert np.abs(back.images - ours.images[by_file(tmp_path / "ldos", ours)]).max() < 1e-6
    assert set(back.coordinates["points"].astype(int)) == lines
    # And once more, from the imported one: names and numbers stay.
    assert stm("convert", tmp_path / "b.zarr", "--to", "ldos", "--out", tmp_path / "again")[0] == 0
    for path in (tmp_path / "again").glob("*.dat"):
        twin = next((tmp_path / "ldos").glob(path.name.split("-s")[0] + "*" + path.name[-7:]))
        assert np.loadtxt(path).shape == np.loadtxt(twin).shape


def test_pictures_come_back_within_one_level(stm, data, pictures, tmp_path):
    code, out, err = stm("import", "images", pictures, "--out", tmp_path / "b.zarr", "--colours", "turbo")
    assert code == 0
    assert "10 states" in out
    assert "8 bits" in err
    ours, back = load(data), load(tmp_path / "b.zarr", verify=True)
    order = by_file(pictures, ours)
    images = ours.images[order]
    low, high = (f(images, axis=(2, 3), keepdims=True) for f in (np.min, np.max))
    assert np.abs(back.images - (images - low) / (high - low)).max() < 1 / 255
    assert np.array_equal(back.targets, ours.targets[order])
    assert same_partition(back.coordinates["group"], ours.coordinates["group"][order])
    assert back.attributes["source"]["colours"] == "turbo"


def test_grey_is_what_their_code_reads(stm, pictures, tmp_path):
    _, _, err = stm("import", "images", pictures, "--out", tmp_path / "b.zarr", "--colours", "grey")
    assert "not monotonic" in err
    back = load(tmp_path / "b.zarr")
    for image, path in zip(back.images, sorted(pictures.glob("*.png")), strict=True):
        assert np.array_equal(image[0], np.asarray(Image.open(path).convert("L"), np.float32) / 255)


def test_pictures_of_another_size(stm, data, tmp_path):
    assert stm("convert", data, "--to", "images", "--out", tmp_path / "png", "--size", 40)[0] == 0
    with Image.open(next((tmp_path / "png").glob("*.png"))) as picture:
        assert (picture.size, picture.mode) == ((40, 40), "RGB")
    assert stm("import", "images", tmp_path / "png", "--out", tmp_path / "b.zarr")[0] == 0
    assert load(tmp_path / "b.zarr").images.shape[1:] == (1, 40, 40)


def test_an_imported_data_set_is_split_by_state(stm, texts, tmp_path):
    stm("import", "ldos", texts, "--out", tmp_path / "b.zarr", "--image-size", SIZE)
    parts = load_parts(tmp_path / "b.zarr", TASK, SplitConfig())
    sides = [set(part.coordinates["group"]) for part in (parts.train, parts.validation, parts.unseen)]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10
    assert len(parts.samples) == 20


def test_where_a_data_set_comes_from_is_kept(stm, texts, tmp_path):
    stm("import", "ldos", texts, "--out", tmp_path / "a.zarr")
    moved = copied(texts, tmp_path / "elsewhere")
    stm("import", "ldos", moved, "--out", tmp_path / "b.zarr")
    a, b = load(tmp_path / "a.zarr").attributes, load(tmp_path / "b.zarr").attributes
    assert (a["recipe"], a["digest"]) == (b["recipe"], b["digest"])
    assert (a["source"]["folder"], b["source"]["folder"]) == ("ldos", "elsewhere")
    assert str(tmp_path) not in (tmp_path / "b.zarr" / "zarr.json").read_text()
    assert len(a["source"]["files"]) == 20
    path = sorted(moved.glob("*.dat"))[0]
    path.write_text(path.read_text().replace("1", "2", 1))
    stm("import", "ldos", moved, "--out", tmp_path / "c.zarr")
    stm("import", "ldos", texts, "--out", tmp_path / "d.zarr", "--envelope", 0.3)
    others = [load(tmp_path / f"{name}.zarr").attributes for name in "cd"]
    assert len({a["recipe"], *(other["recipe"] for other in others)}) == 3
    assert len({a["digest"], *(other["digest"] for other in others)}) == 3


def test_a_map_is_no_input_of_a_model_of_pictures(stm, texts, pictures, tmp_path):
    stm("import", "images", pictures, "--out", tmp_path / "b.zarr")
    spec = load(tmp_path / "b.zarr").attributes["input"]
    assert TASK.axes(spec).extent[1] > 0
    with pytest.raises(InputError, match="trained on 8-bit pictures"):
        TASK.prepare(read(next(texts.glob("*.dat"))), spec)


def test_two_that_write_one_place_at_once(stm, data, tmp_path):
    texts = tmp_path / "texts"
    for out, words in ((texts, ("convert", data, "--to", "ldos")), (tmp_path / "b.zarr", ("import", "ldos", texts))):
        with only_writer(out):
            code, _, err = stm(*words, "--out", out)
        assert (code, f"another process is writing {out}" in err) == (2, True), err
        assert not out.exists()
        assert stm(*words, "--out", out)[0] == 0


def test_flagged_states_are_left_out_unless_asked_for(stm, tmp_path):
    data = make(tmp_path / "ours.zarr", config_of(), flagged=(1, 4))
    _, out, _ = stm("convert", data, "--to", "ldos", "--out", tmp_path / "some")
    assert "16 files" in out
    assert "4 of states that did not converge are left out" in out
    assert stm("convert", data, "--to", "ldos", "--out", tmp_path / "all", "--include-unconverged")[0] == 0
    assert len(list((tmp_path / "all").glob("*.dat"))) == 20


def test_several_energies_are_written_one_at_a_time(stm, tmp_path):
    data = make(tmp_path / "ours.zarr", config_of(energies=[-0.05, 0, 0.05]))
    for channel in (0, 2):
        folder = tmp_path / f"e{channel}"
        assert stm("convert", data, "--to", "ldos", "--out", folder, "--channel", channel)[0] == 0
        assert stm("import", "ldos", folder, "--out", tmp_path / f"{channel}.zarr", "--image-size", SIZE)[0] == 0
        ours, back = load(data), load(tmp_path / f"{channel}.zarr")
        assert np.abs(back.images[:, 0] - ours.images[by_file(folder, ours), channel]).max() < 1e-6
    for to in ("ldos", "images"):
        code, _, err = stm("convert", data, "--to", to, "--out", tmp_path / "no", "--channel", 3)
        assert (code, "choose 0 to 2" in err) == (2, True)
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_converted(stm, data, pictures, tmp_path):
    stm("import", "images", pictures, "--out", tmp_path / "pictures.zarr")
    flat = make(tmp_path / "flat.zarr", config_of(), blank=True)
    broken = copied(data, tmp_path / "broken.zarr")
    chunk = sorted((broken / "ldos").glob("c.*"))[3]
    chunk.write_bytes(chunk.read_bytes()[:-5])
    for source, to, words in (
        (tmp_path / "pictures.zarr", "ldos", "holds images alone"),
        (flat, "images", "sample 0: all pixels equal 0"),
        (broken, "ldos", "is damaged in sample"),
        (tmp_path / "gone.zarr", "ldos", "no data set at"),
        (data, "pdf", "unknown convention"),
    ):
        code, out, err = stm("convert", source, "--to", to, "--out", tmp_path / "x")
        assert (code, out) == (2, "")
        assert words in err.splitlines()[-1]
    assert not [path for path in tmp_path.iterdir() if path.name.strip(".").startswith("x")]
