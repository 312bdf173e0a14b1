"""What is known of a measured field from elsewhere, and how well the task impurity finds it."""

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.tasks import registry
from stm_models.tasks.impurity import scoring
from stm_models.tasks.impurity.labels import unpadded
from stm_models.tasks.impurity.reference import read_reference
from stm_models.tasks.impurity.simulation import plan
from stm_models.tasks.inputs import RawMap, Reference
from support.impurity_cases import BIASES, answer_of, fields, make


@pytest.fixture(scope="module")
def task():
    return registry.get("impurity")


def _fine(folder, bound):
    """Write a map with three pixels in place of each along both sides; return the file."""
    np.save(folder / "fine.npy", bound.repeat(3, axis=0).repeat(3, axis=1))
    return folder / "fine.npy"


def test_a_reference_is_scored_in_the_models_pixels(task, tmp_path):
    """Of a file with pixels of a third, 2 of its pixels are less than one of the model's."""
    spec = plan(make()).attributes["input"]
    about = {"step": [3.0, 3.0], "pixel_nm": [spec["pixel_nm"] / 3] * 2}
    answer = answer_of(task, spec, np.array([[10.0, 20.0]]), about)
    table = tmp_path / "known.csv"
    y, x = (3 * (np.array([10.0, 20.0]) + 0.5) - 0.5) + [2, 0]
    table.write_text(f"x_px,y_px\n{x},{y}\n")
    found, _ = task.reference_metrics(answer, {}, Reference(table))
    assert found["reference_precision"] == 1
    assert found["reference_error_px"] == pytest.approx(2 / 3, abs=0.02)


def test_references(task, tmp_path):
    spec = plan(make()).attributes["input"]
    where = np.array([[10.0, 20.0], [5.0, 6.0]])
    answer = answer_of(task, spec, where)
    table = tmp_path / "known.csv"
    table.write_text("x_px, y_px\n20,10\n6,5\n25,25\n")
    found, _ = task.reference_metrics(answer, {}, Reference(table))
    assert found["reference_precision"] == 1
    assert found["reference_recall"] == pytest.approx(2 / 3)
    table.write_text("# made by hand\nx_nm\ty_nm\n9.609\t4.922\n")
    known = read_reference(Reference(table), answer["pixel_nm"]).positions
    assert known[0] == pytest.approx([10, 20], abs=0.01)
    (result,) = fields(generator="experiment", preset="std", fields=1, size=64)
    np.save(tmp_path / "bound.npy", result.arrays["bound_state"][0])
    bound = read_reference(Reference(tmp_path / "bound.npy"), answer["pixel_nm"])
    known, shape = bound.positions, bound.shape
    assert shape == (64, 64)
    (truth,) = unpadded(result.arrays["positions"])
    assert scoring.scores([known], [truth], shape)["f1"] > 0.75
    fine = read_reference(Reference(_fine(tmp_path, result.arrays["bound_state"][0])), [0.46875 / 3] * 2, (3.0, 3.0))
    np.testing.assert_allclose((fine.positions + 0.5) / 3 - 0.5, known, atol=0.15)
    for text, words in [("a,b\n1,2\n", "a, b"), ("x,y\n1,here\n", "no position"), ("x,y\n", "0 positions")]:
        table.write_text(text)
        with pytest.raises(InputError, match=words):
            read_reference(Reference(table), answer["pixel_nm"])


@pytest.mark.parametrize("measured", [slice(0, 40), slice(24, 64)])
def test_an_unfinished_scan_is_scored_in_the_rows_that_it_reached(task, tmp_path, measured):
    """Against its own bound-state map, of which the other rows are zero, one of the whole field, and a table."""
    (result,) = fields(generator="experiment", preset="std", fields=1, size=64)
    (true,), bound = unpadded(result.arrays["positions"]), result.arrays["bound_state"][0]
    true = true[(true[:, 0] > -0.5) & (true[:, 0] < 63.5)]
    there = (true[:, 0] > measured.start + 1) & (true[:, 0] < measured.stop - 2)
    raw = RawMap(np.zeros((3, 64, 64)), (30.0, 30.0), BIASES, "file")
    raw.values[:, measured] = np.random.default_rng(0).normal(1, 0.1, (3, 40, 64))
    spec = plan(make()).attributes["input"]
    about = task.prepare(raw, spec).about
    assert about["rows"] == [measured.start, measured.stop]
    answer = answer_of(task, spec, true[there] - [measured.start, 0], about, size=64)
    part = np.zeros_like(bound)
    part[measured] = bound[measured]
    np.savez(tmp_path / "part.npz", data=part, size_nm=[30.0, 30.0])
    np.savez(tmp_path / "whole.npz", data=bound, size_nm=[30.0, 30.0])
    table = "\n".join(["x_px,y_px", *(f"{x},{y}" for y, x in true)])
    (tmp_path / "known.csv").write_text(table)
    for name in ("part.npz", "whole.npz", "known.csv"):
        found, notes = task.reference_metrics(answer, about, Reference(tmp_path / name))
        assert found["reference_precision"] > 0.85, name
        assert found["reference_recall"] > 0.75, name
        outside = f"positions lie outside the rows from {measured.start} to {measured.stop}, which were measured"
        assert any(outside in note for note in notes) == (name != "part.npz")
        assert any("part.npz: The scan is unfinished: 24 of 64 rows" in note for note in notes) == (name == "part.npz")
    whole = answer_of(task, spec, true, size=64)
    found, notes = task.reference_metrics(whole, {"rows": [0, 64]}, Reference(tmp_path / "part.npz"))
    assert found["reference_precision"] > 0.85
    assert "found positions lie outside the rows" in notes[-1]
    (tmp_path / "known.csv").write_text(f"x_px,y_px\n5,{4 if measured.start else 60}\n")
    with pytest.raises(InputError, match="none of its 1 positions lies in the rows from"):
        task.reference_metrics(answer, about, Reference(tmp_path / "known.csv"))


def test_a_reference_in_the_measured_file_is_read_as_that_was(task, tmp_path):
    (result,) = fields(generator="experiment", preset="std", fields=1, size=64)
    (true,), bound = unpadded(result.arrays["positions"]), result.arrays["bound_state"][0]
    path = tmp_path / "stack.npz"
    np.savez(path, data=np.stack([bound, bound]), bias=[-0.52, 0.0], size_nm=[3.0, 3.0])
    spec = plan(make()).attributes["input"]
    answer = answer_of(task, spec, true[(true > 0).all(axis=1) & (true < 63).all(axis=1)], size=64)
    about = {"rows": [0, 64], "size_nm": [30.0, 30.0]}
    found, notes = task.reference_metrics(answer, about, Reference(path, -0.52, {"size_nm": (30.0, 30.0)}))
    assert found["reference_f1"] > 0.75
    assert notes == ()
    numbered = {"size_nm": (30.0, 30.0), "channel": 1}
    assert task.reference_metrics(answer, about, Reference(path, -0.52, numbered))[0] == found
    np.savez(path, data=bound, size_nm=[36.0, 30.0])
    notes = task.reference_metrics(answer, about, Reference(path))[1]
    assert any("stack.npz is a field of 36 x 30 nm, the measured one of 30 x 30 nm" in note for note in notes)


def test_a_reference_of_its_own_is_told_no_option_that_it_has_not(task, tmp_path):
    answer = answer_of(task, plan(make()).attributes["input"], [[5.0, 6.0]])
    np.save(tmp_path / "stack.npy", np.ones((3, 16, 16)))
    for bias, read_as, words in (
        (0.1, None, "choose with --channel 0 to 2; of a reference in a file of its own no option but --reference-bias"),
        (0.1, {}, "choose with --channel 0 to 2$"),
        (None, None, "holds 3 maps: expected the one map at the band bottom; save it by itself"),
    ):
        with pytest.raises(InputError, match=words):
            task.reference_metrics(answer, {}, Reference(tmp_path / "stack.npy", bias, read_as))
