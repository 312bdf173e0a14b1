"""Files that others wrote: which of them are one state, and everything that is no such file."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from pipelines.import_data import import_folder
from stm_models.data.dataset import load
from stm_models.data.readers import read
from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid, direct_transform
from stm_models.tasks.hubbard.conventions.ldos import LdosImport
from stm_models.tasks.inputs import RawMap
from support import random_ldos

SIZE, TASK = random_ldos.SIZE, random_ldos.TASK


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


@pytest.mark.parametrize("options", [(), ("--envelope", 0), ("--radius", 7), ("--radius", 30)])
def test_a_model_of_all_points_is_asked_about_all_points(stm, tmp_path, options):
    """A file is the same image to the model as it was in the training; a raster has not its outline."""
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(16.0)), -1).reshape(-1, 2)
    name = "LDOS-Mu-I9-U1.0-s.dat"
    (tmp_path / "a").mkdir()
    np.savetxt(tmp_path / "a" / name, np.column_stack([grid, np.random.default_rng(0).uniform(1, 2, len(grid))]))
    usual = ("import", "ldos", tmp_path / "a", "--image-size", SIZE, "--out")
    stm(*usual, tmp_path / "all.zarr", "--patch", "all", *options)
    samples = load(tmp_path / "all.zarr")
    spec, raw = samples.attributes["input"], read(tmp_path / "a" / name)
    assert np.abs(TASK.prepare(raw, spec).image - samples.images[0]).max() < 1e-6
    turn = np.array([[0, -1], [1, 0]])  # a quarter clockwise, which --rotate undoes
    turned = replace(raw, points=raw.points @ turn, rotate=90.0)
    assert np.abs(TASK.prepare(turned, spec).image - samples.images[0]).max() < 1e-6
    with pytest.raises(InputError, match="all points of files x y value"):
        TASK.prepare(RawMap(np.random.default_rng(0).random((1, 20, 20)), (5.0, 5.0), None, "map.npy"), spec)
    with pytest.raises(InputError, match="holds NaN or infinity"):
        TASK.prepare(replace(raw, values=raw.values * np.nan, source="map.dat"), spec)
    stm(*usual, tmp_path / "disc.zarr")
    assert "patch" not in load(tmp_path / "disc.zarr").attributes["input"]


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
