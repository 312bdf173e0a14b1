"""Data sets to other people's files and back: values, labels, states; and everything that is no such file."""

from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from pipelines.cli import main
from pipelines.fitting import load_parts
from pipelines.import_data import import_folder
from pipelines.settings import SplitConfig
from stm_models.data.dataset import load
from stm_models.data.readers import read
from stm_models.data.store import Store, create
from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid, direct_transform
from stm_models.physics.moire.lattice import build, patch
from stm_models.signal.real_map import to_ft_image
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.conventions.ldos import LdosImport
from stm_models.tasks.hubbard.task import HubbardTask
from stm_models.tasks.plan import GroupResult

TASK = HubbardTask()
SIZE = 16


def config_of(**values):
    usual = {"index": 2, "layer_distance": 2.75, "interaction_count": 5, "replicates": 2, "draws": 2}
    return HubbardSimulation(**{**usual, "image_size": SIZE, "patch_radius": 1.5, **values})


def make(path: Path, config: HubbardSimulation, flagged: tuple[int, ...] = (), blank: bool = False) -> Path:
    """A data set with random LDOS; its images by the slow sum, written out here once more."""
    plan = replace(TASK.plan(config), state={})
    create(path, plan, {
        **plan.attributes, "task": "hubbard", "config": config.model_dump(mode="json"), "recipe": "r" * 64,
        "targets": [asdict(target) for target in TASK.targets],
    })  # fmt: skip
    store = Store(path)
    radius = 1.5 * np.sqrt(3 * max(config.index) ** 2 + 3 * max(config.index) + 1)
    for group in plan.groups:
        known = group.parameters
        lattice = build(round(known["index"]), known["layer_distance"], known["strain"], known["strain_angle"])
        points, copies = patch(lattice, radius)
        envelope = np.exp(-(points**2).sum(1) / (2 * (config.envelope * radius) ** 2))
        weight = envelope * np.where(lattice.layer[copies] == 0, config.bottom_layer, 1.0)
        rng = np.random.default_rng([7, group.index])
        ldos = np.zeros((config.draws, *plan.arrays["ldos"].shape), np.float32)
        ldos[..., : lattice.size] = rng.uniform(0.2, 1, (*ldos.shape[:2], lattice.size))
        weights = ldos[..., copies].astype(float) * weight
        flat = weights.reshape(-1, len(points))
        image = np.abs(direct_transform(*points.T, flat, KGrid(SIZE))) / flat.sum(1)[:, None, None]
        image = image.reshape(*weights.shape[:2], SIZE, SIZE)
        scalars = {variable.name: 0.25 * group.index for variable in plan.scalars}
        scalars["converged"] = float(group.index not in flagged)
        store.write(group, GroupResult({"image": image * (not blank), "ldos": ldos}, {}, scalars))
    store.finish()
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp("data") / "ours.zarr", config_of(bottom_layer=0.3))


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


@pytest.fixture
def stm(capsys):
    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert (code == 0) == bool(said.out)
        return code, said.out, said.err

    return call


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


def field(seed: int, count: int = 160) -> str:
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.uniform(-4, 4, (count, 2)), rng.uniform(1, 2, count)])
    return "\n".join(" ".join(map(str, row)) for row in rows)


@pytest.fixture
def theirs(tmp_path):
    """Six files as a stranger names them: no number of the state, one U twice."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number, U in enumerate(("0.00", "0.50", "0.50", "1.00", "1.50", "2.00")):
        (folder / f"LDOS-Mu-I9-P{number}-U{U}-eta.dat").write_text(field(number))
    return folder


def groups(stm, folder, out, *options):
    code, _, err = stm("import", "ldos", folder, "--out", out, "--image-size", 8, *options)
    assert code == 0, err
    return load(out).coordinates["group"].tolist(), err


def test_every_file_is_a_state_where_names_tell_nothing(stm, theirs, tmp_path):
    assert groups(stm, theirs, tmp_path / "b.zarr")[0] == [0, 1, 2, 3, 4, 5]
    assert load(tmp_path / "b.zarr").targets[:, 0].tolist() == [0, 0.5, 0.5, 1, 1.5, 2]


def test_copies_are_one_state_even_when_written_otherwise(stm, theirs, tmp_path):
    (theirs / "LDOS-Mu-I9-P1-U0.50-eta.dat").write_text("# a copy\n" + field(2).replace(" ", "\t") + "\n\n")
    assert groups(stm, theirs, tmp_path / "b.zarr")[0] == [0, 1, 1, 2, 3, 4]


def test_copies_with_another_label_are_told(stm, theirs, tmp_path):
    (theirs / "LDOS-Mu-I9-P5-U2.00-eta.dat").write_text(field(0))
    found, err = groups(stm, theirs, tmp_path / "b.zarr")
    assert found == [0, 1, 2, 3, 4, 5]
    assert "nothing can tell them apart" in err


def test_a_manifest_says_labels_groups_and_numbers(stm, theirs, tmp_path):
    (theirs / "LDOS-Mu-I9-P5-U2.00-eta.dat").rename(theirs / "no label.dat")
    rows = [f"LDOS-Mu-I9-P{n}-U{U}-eta.dat,{U},{g},{n}" for n, U, g in ((0, "0.00", "a"), (1, "0.50", "b"))]
    rows += ["LDOS-Mu-I9-P2-U0.50-eta.dat,0.5,b,7", "no label.dat,2.25,c,9"]
    (theirs / "manifest.csv").write_text("\n".join(["file,U,group,strain", *rows]))
    found, err = groups(stm, theirs, tmp_path / "b.zarr")
    assert found == [0, 1, 1, 2, 3, 4]
    assert load(tmp_path / "b.zarr").targets[-1, 0] == 2.25
    assert "strain: not known of every file" in err


def test_all_points_or_a_disc(stm, tmp_path):
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), -1).reshape(-1, 2)
    values = np.random.default_rng(0).uniform(1, 2, 400)
    (tmp_path / "a").mkdir()
    np.savetxt(tmp_path / "a" / "LDOS-Mu-I9-U1.0-s.dat", np.column_stack([grid, values]))
    usual = ("import", "ldos", tmp_path / "a", "--image-size", SIZE, "--out")
    _, _, err = stm(*usual, tmp_path / "all.zarr", "--patch", "all", "--envelope", 0)
    assert "all points count" in err
    expected = np.abs(direct_transform(*grid.T, values, KGrid(SIZE))) / values.sum()
    assert np.abs(load(tmp_path / "all.zarr").images[0, 0] - expected).max() < 1e-6
    stm(*usual, tmp_path / "disc.zarr")
    radius = np.hypot(*(grid - 9.5).T)
    weights = values * np.exp(-(radius**2) / (2 * (0.4 * 9.5) ** 2)) * (radius < 9.5 + 1e-6)
    expected = np.abs(direct_transform(*(grid - 9.5).T, weights, KGrid(SIZE))) / weights.sum()
    assert np.abs(load(tmp_path / "disc.zarr").images[0, 0] - expected).max() < 1e-6


def turbo(size: int = 16) -> np.ndarray:
    return colormaps["turbo"](np.random.default_rng(0).random((size, size)), bytes=True)[..., :3]


BAD, FIRST, LIST = "LDOS-Mu-I9-U3.00-x.dat", "LDOS-Mu-I9-P0-U0.00-eta.dat", "manifest.csv"
TEXT_MISTAKES = {
    "columns": (BAD, "1 2 3 4\n" * 100, "has 4 columns"),
    "nan": (BAD, field(9) + "\n0.1 0.2 nan", "1 of 161 lines hold NaN"),
    "infinite": (BAD, field(9) + "\n0.1 0.2 1e999", "1 of 161 lines hold NaN"),
    "words": (BAD, field(9) + "\nthe end", "is no table of numbers"),
    "cut": (BAD, field(9)[:-40].rsplit(" ", 1)[0], "is no table of numbers"),
    "commas": (BAD, field(9).replace(" ", ","), "is no table of numbers"),
    "empty": (BAD, "", "is empty"),
    "binary": (BAD, bytes(range(256)) * 9, "is no table of numbers"),
    "few": (BAD, field(9, 20), "20 points, expected at least 64"),
    "line": (BAD, "\n".join(f"{x} 0 1" for x in range(99)), "span a field"),
    "negative": (BAD, "\n".join(f"{x % 20} {x // 20} -1" for x in range(400)), "F(0), the sum of the weights, is"),
    "units": (BAD, "\n".join(f"{x % 9}e9 {x // 9}e9 1" for x in range(99)), "change the units"),
    "no label": ("LDOS-Mu-I9-x.dat", field(9), "LDOS-Mu-I5-d2.74-eps10-nu+0.12-U3.00000-s0-n0.dat"),
    "same name": (f"sub/{FIRST}", field(9), "is there more than once"),
    "contradiction": (LIST, f"file,U\n{FIRST},4.0\n", "the manifest says U = 4 eV, the name 0"),
    "attraction": (LIST, f"file,U\n{FIRST},-1e-6\n", "expected a repulsion"),
    "two labels": (LIST, f"file,group\n{FIRST},g\nLDOS-Mu-I9-P1-U0.50-eta.dat,g\n", "are one group"),
    "not there": (LIST, "file,U\ngone.dat,1\n", "'gone.dat'"),
    "row twice": (LIST, "file,U\na.dat,1\na.dat,1\n", "is there twice"),
    "no number": (LIST, f"file,U\n{FIRST},much\n", "'much'"),
    "no column": (LIST, "name,U\na.dat,1\n", "name, U; expected file,U,group"),
    "own column": (LIST, f"file,ldos\n{FIRST},1\n", "'ldos'"),
    "short row": (LIST, f"file,U\n{FIRST}\n", "expected 2 columns"),
    "no table": (LIST, b"\xff\xfe\x00", "is no CSV table"),
}


def refused(result, folder: Path, *words: str) -> None:
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0]
    assert not [path.name for path in folder.iterdir() if ".zarr" in path.name or "out" in path.name]


@pytest.mark.parametrize(("name", "content", "words"), TEXT_MISTAKES.values(), ids=TEXT_MISTAKES)
def test_bad_text_leaves_one_line_and_nothing_else(stm, theirs, tmp_path, name, content, words):
    (theirs / name).parent.mkdir(exist_ok=True)
    (theirs / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(stm("import", "ldos", theirs, "--out", tmp_path / "b.zarr"), tmp_path, words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", turbo(), "a.png has no label"),
        ("U3.0-a.png", turbo(18), "a data set has one size"),
        ("U3.0-a.png", np.full((16, 16, 3), 255, np.uint8), "no colour of the turbo map"),
        ("U3.0-a.png", b"%PDF-1.4", "is no PNG picture"),
        ("U3.0-a.png", None, "is cut short or damaged"),
    ],
)
def test_bad_pictures_leave_one_line_and_nothing_else(stm, tmp_path, name, content, words):
    folder = tmp_path / "png"
    folder.mkdir()
    Image.fromarray(turbo()).save(folder / "U1.0-a.png")
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    elif content is None:
        (folder / name).write_bytes((folder / "U1.0-a.png").read_bytes()[:300])
    else:
        Image.fromarray(content).save(folder / name)
    refused(stm("import", "images", folder, "--out", tmp_path / "b.zarr"), tmp_path, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ldos", "nowhere"], ["does not exist"]),
        (["ldos", "nothing"], ["holds nothing", ".dat or .txt"]),
        (["images", "theirs"], ["only other files", ".png"]),
        (["image", "theirs"], ["unknown convention", "ldos, images", "did you mean 'images'"]),
        (["ldos", "theirs", "--task", "hubard"], ["hubard"]),
        (["ldos", "theirs", "--colours", "grey"], ["unknown key 'colours'", "patch"]),
        (["images", "theirs", "--colours", "jet"], ["'turbo' or 'grey'"]),
        (["ldos", "theirs", "--radius", "nan"], ["radius"]),
        (["ldos", "theirs", "--radius", "1.5"], ["points within 1.5 a"]),
        (["ldos", "theirs", "--manifest", "gone.csv"], ["gone.csv"]),
        (["ldos", "theirs", "--image-size", "9999"], ["image_size"]),
    ],
)
def test_bad_import_commands(stm, theirs, tmp_path, monkeypatch, arguments, words):
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    refused(stm("import", *arguments, "--out", "b.zarr"), tmp_path, *words)


def test_too_many_files(stm, theirs, tmp_path, monkeypatch):
    monkeypatch.setattr("stm_models.tasks.hubbard.conventions.sources.LARGEST_FOLDER", 5)
    refused(stm("import", "ldos", theirs, "--out", tmp_path / "b.zarr"), tmp_path, "6 .dat or .txt files", "at most 5")


def test_a_large_file_is_not_read(stm, theirs, tmp_path, monkeypatch):
    monkeypatch.setattr("stm_models.tasks.hubbard.conventions.ldos.LARGEST", 1000)
    refused(stm("import", "ldos", theirs, "--out", tmp_path / "b.zarr"), tmp_path, "MiB, expected at most")


def test_what_is_there_is_left_alone(stm, theirs, data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for command in (("import", "ldos", theirs), ("convert", data, "--to", "images")):
        code, _, err = stm(*command, "--out", tmp_path / "mine")
        assert (code, "error: " in err) == (2, True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_what_a_killed_command_left_is_no_hindrance(stm, theirs, data, tmp_path):
    for command, out, left in (
        (("import", "ldos", theirs), tmp_path / "b.zarr", ".b.zarr.importing"),
        (("convert", data, "--to", "images"), tmp_path / "png", ".png.converting"),
    ):
        (tmp_path / left / "half").mkdir(parents=True)
        out.mkdir()  # an empty folder is as good as none
        assert stm(*command, "--out", out)[0] == 0
        assert not (tmp_path / left).exists()
        assert any(out.iterdir())
    assert len(load(tmp_path / "b.zarr", verify=True)) == 6


def test_a_map_is_no_input_of_a_model_of_pictures(stm, texts, pictures, tmp_path):
    stm("import", "images", pictures, "--out", tmp_path / "b.zarr")
    spec = load(tmp_path / "b.zarr").attributes["input"]
    assert TASK.axes(spec).extent[1] > 0
    with pytest.raises(InputError, match="trained on 8-bit pictures"):
        TASK.prepare(read(next(texts.glob("*.dat"))), spec)


def test_a_file_changed_meanwhile(theirs, tmp_path):
    """Between the first look and the second, which writes."""
    convention = TASK.conventions()["ldos"]

    class Meddling:
        def survey(self, folder, options, watch):
            found = convention.survey(folder, options, watch)
            (folder / "LDOS-Mu-I9-P4-U1.50-eta.dat").write_text(field(44))
            return found

    with pytest.raises(InputError, match="was changed while it was imported"):
        import_folder(TASK, Meddling(), theirs, LdosImport(), tmp_path / "b.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


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


def test_files_are_not_held_in_memory(tmp_path):
    """Four times the files, the same peak: each is read, written and forgotten."""
    convention, peaks = TASK.conventions()["ldos"], []
    rng = np.random.default_rng(0)
    for count in (3, 12):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            table = np.column_stack([rng.uniform(-40, 40, (2500, 2)), rng.uniform(1, 2, 2500)])
            np.savetxt(folder / f"LDOS-Mu-I9-P{number}-U1.50-eta.dat", table, "%.4f")
        tracemalloc.start()
        import_folder(TASK, convention, folder, LdosImport(image_size=64), tmp_path / f"{count}.zarr")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * 2500 * 8 * 3, peaks
