"""What `stm explain` says of the demo's model, and that it is so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray

from deploy.model.session import Session
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import connect


@pytest.fixture
def said(command):
    """Run a command that must succeed; its JSON."""

    def call(*arguments):
        code, out, err = command(*map(str, arguments), "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def regions(data, sample):
    row = {name: float(data[name][sample]) for name in ("index", "layer_distance", "strain", "strain_angle")}
    return get("hubbard").regions(data.attrs, row, data.image.shape[2:], None)


def test_scores_are_what_they_say(said, demo, tmp_path):
    found = said("explain", demo.model, demo.data, "--samples", "5,2", "--out", tmp_path)
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["reference"] == "mean of the training images"
    assert [one["name"] for one in record["images"]] == ["sample-00005", "sample-00002"]
    data, session = xarray.open_zarr(demo.data), Session(demo.onnx)
    one = record["images"][0]["methods"]["gradient"]
    image, map = data.image.values[5], np.load(tmp_path / "sample-00005_gradient.npy")
    assert one["answer"] == pytest.approx(session.run(image[None])["prediction"][0, 0], rel=1e-4)
    # Where everything is removed nothing is left of the image: the reference answers for both.
    ends = [record["images"][i]["methods"]["gradient"]["answer_to_reference"] for i in (0, 1)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-5)
    shares = one["share"]
    strength = np.abs(map)[0] / np.abs(map).sum()
    for name, mask in regions(data, 5).items():
        assert shares[name] == pytest.approx(strength[mask].sum(), rel=1e-5)
        assert record["images"][0]["regions"][name]["area"] == pytest.approx(mask.mean())
    assert sum(shares.values()) == pytest.approx(1)
    summary = found["scores"]["gradient"]
    gains = [image["methods"]["gradient"]["deletion"]["gain"] for image in record["images"]]
    assert summary["deletion"] == pytest.approx(np.mean(gains))
    assert 0 < summary["max_sensitivity"] < 100
    assert Path(found["files"][-2]).name == "scores.png"


def test_the_deletion_curve_by_hand(said, demo, tmp_path):
    """Pixels are replaced one by one here, the largest first, by the mean of the data set that --background names."""
    fresh = demo.folder / "demo-output" / "fresh.zarr"
    said("explain", demo.onnx, demo.data, "--sample", "3", "--background", fresh, "--out", tmp_path)
    record = json.loads((tmp_path / "scores.json").read_text())
    found = record["images"][0]["methods"]["gradient"]
    session = Session(demo.onnx)
    data = xarray.open_zarr(fresh)
    reference = data.image.values[data.converged.values.astype(bool)].mean(axis=0, dtype=np.float64).astype(np.float32)
    image, map = xarray.open_zarr(demo.data).image.values[3], np.load(tmp_path / "sample-00003_gradient.npy")
    ranked = np.argsort(-np.abs(map).ravel(), kind="stable")
    answers = []
    for fraction in found["curves"]["fraction"]:
        changed = image.copy().ravel()
        part = ranked[: round(fraction * image.size)]
        changed[part] = reference.ravel()[part]
        answers.append(session.run(changed.reshape(1, *image.shape))["prediction"][0, 0])
    strong = np.count_nonzero(map) / map.size  # beyond lie pixels of no importance, in any order
    kept = np.array(found["curves"]["fraction"]) <= strong
    assert kept.sum() >= 4
    np.testing.assert_allclose(np.array(found["curves"]["deletion"])[kept], np.array(answers)[kept], atol=2e-3)
    left = np.abs(np.array(found["curves"]["deletion"]) - found["answer_to_reference"])
    assert found["deletion"]["area"] == pytest.approx(np.trapezoid(left, found["curves"]["fraction"]))
    assert "--background" in record["reference"]


def test_one_scale_of_colours_for_all_maps_of_a_method(said, demo, tmp_path, monkeypatch):
    from stm_models.explain import render

    drawn = []
    monkeypatch.setattr(render, "overlay_png", lambda path, image, map, **more: drawn.append((map, more)))
    said("explain", demo.onnx, demo.data, "--samples", "0:3", "--method", "all", "--no-scores", "--out", tmp_path)
    count = len(Session(demo.onnx).metadata.explanations)
    assert len(drawn) == 3 * count
    for first in range(0, len(drawn), 3):
        maps, settings = zip(*drawn[first : first + 3], strict=True)
        assert {one["limit"] for one in settings} == {float(np.abs(maps).max())}


def test_what_a_run_explains_is_recorded_and_shap_is_reproducible(said, demo, tmp_path):
    run_id = demo.result["best_run"]
    ask = ("explain", f"runs:/{run_id}", demo.data, "--sample", "4", "--draws", "8", "--background-size", "6")
    one, again, other = (
        said(*ask, "--method", "shap,gradient", "--out", tmp_path / name, "--seed", seed, *more)
        for name, seed, more in (("a", 0, ["--randomise"]), ("b", 0, ["--no-scores"]), ("c", 1, ["--no-scores"]))
    )
    maps = [np.load(tmp_path / name / "sample-00004_shap.npy") for name in "abc"]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])
    assert one["run_id"] != again["run_id"] != other["run_id"]
    store = connect()
    row = runs.get(store, one["run_id"])
    assert row.name == "explain"
    assert row.status == "FINISHED"
    assert row.tags["explained.run"] == run_id
    assert row.metrics["shap.insertion"] == pytest.approx(one["scores"]["shap"]["insertion"])
    assert row.metrics["gradient.randomised"] == pytest.approx(one["randomisation"]["gradient"]["final"])
    logged = runs.download(store, one["run_id"], "explanations")
    assert {path.name for path in logged.iterdir()} == {Path(file).name for file in one["files"]}
    pictures = runs.download(store, run_id, "explanations")
    assert "sample-00004_shap.png" in {path.name for path in pictures.iterdir()}
    stages = one["randomisation"]["gradient"]["stages"]
    assert stages[-1]["correlation"] == one["randomisation"]["gradient"]["final"]
    assert len(stages) > 1


def test_attention_over_the_target_is_what_the_maps_give(said, demo, tmp_path):
    found = said("explain", demo.model, demo.data, "--by-target", "--most", "40", "--out", tmp_path)
    record = json.loads((tmp_path / "attention.json").read_text())
    assert found["samples"] == record["samples"] == 40
    assert record["trained_on_this_data"]
    assert any("fresh" in note for note in found["notes"])
    data, session = xarray.open_zarr(demo.data), Session(demo.onnx)
    good = np.flatnonzero(data.converged.values)
    ranked = good[np.argsort(data.U.values[good], kind="stable")]
    chosen = np.sort(ranked[np.unique(np.linspace(0, len(ranked) - 1, 40).round().astype(int))])
    maps = session.run(data.image.values[chosen], ["gradient"])["gradient"]
    with np.load(tmp_path / "gradient_by_target.npz") as means:
        assert means["samples"].sum() == 40
        for number, (low, high) in enumerate(means["edges"]):
            mine = (data.U.values[chosen] >= low) & (data.U.values[chosen] <= high)
            assert mine.sum() == means["samples"][number]
            scale = np.abs(maps[mine]).max()
            np.testing.assert_allclose(means["mean"][number], maps[mine].mean(axis=0), atol=1e-4 * scale)
            np.testing.assert_allclose(means["strength"][number], np.abs(maps[mine]).mean(axis=0), atol=1e-4 * scale)
        low, high = means["edges"][0]
    first = (data.U.values[chosen] >= low) & (data.U.values[chosen] <= high)
    shares = [
        np.abs(map)[0][regions(data, sample)["Bragg peaks"]].sum() / np.abs(map).sum()
        for map, sample in zip(maps[first], chosen[first], strict=True)
    ]
    entry = record["methods"]["gradient"]
    assert entry["share"]["Bragg peaks"]["mean"][0] == pytest.approx(np.mean(shares), rel=1e-3)
    assert found["attention"]["gradient"] == entry["statement"]
    assert entry["compared"] == ["central moiré peaks", "Bragg peaks"]
    assert runs.get(connect(), found["run_id"]).metrics["gradient.slope.Bragg peaks"] == pytest.approx(
        entry["slope"]["Bragg peaks"]["value"]
    )


def test_a_model_file_alone_needs_no_store(said, demo, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    np.save(tmp_path / "image.npy", xarray.open_zarr(demo.data).image.values[0])
    found = said("explain", demo.onnx, tmp_path / "image.npy", "--out", tmp_path / "why")
    assert found["run_id"] is None
    assert found["scores"] == {}
    assert any("give --background" in note for note in found["notes"])
    found = said("explain", demo.onnx, demo.data, "--sample", "1", "--out", tmp_path / "more")
    assert found["scores"]["gradient"]["deletion"] != 0
    assert json.loads((tmp_path / "more" / "scores.json").read_text())["reference"].startswith("mean of the data set")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "shap"), ["--method shap needs the torch weights", "runs:/"]),
        (("--randomise",), ["--randomise needs the torch weights", "runs:/"]),
        (("--method", "saliency"), ["saliency", "gradient", "shap:deep"]),
        (("--sample", "1", "--samples", "2"), ["--sample is 1", "one of them"]),
        (("--samples", "0:17"), ["17 samples", "at most 16", "--by-target"]),
        (("--samples", "4:2"), ["4:2", "0:16"]),
        (("--samples", "0:999999999"), ["0:999999999", "at most 1000000"]),
        (("--samples", "99999"), ["99999", "samples 0 to"]),
        (("--by-target", "--samples", "0:4"), ["--by-target", "--most"]),
        (("--by-target", "--most", "2"), ["--most is 2"]),
        (("--by-target", "--channel", "1"), ["--by-target takes a data set", "--channel"]),
        (("--seed", "-1"), ["--seed is -1"]),
        (("--draws", "0"), ["--draws is 0"]),
    ],
)
def test_mistakes_are_named(command, demo, tmp_path, arguments, words):
    out = tmp_path / "why"
    code, _, err = command("explain", str(demo.onnx), str(demo.data), "--out", str(out), *arguments)
    assert code == 2, err
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert not out.exists()


def test_layers_are_randomised_of_methods_that_torch_has(command, demo, tmp_path):
    out, run = tmp_path / "why", f"runs:/{demo.result['best_run']}"
    code, _, err = command("explain", run, str(demo.data), "--out", str(out), "--method", "shap", "--randomise")
    assert code == 2
    assert "--randomise knows gradient" in err
    assert not out.exists()


def test_a_deep_explainer_that_is_not_exact_is_refused(command, demo, tmp_path):
    run = f"runs:/{demo.result['best_run']}"
    ask = ("explain", run, str(demo.data), "--method", "shap:deep", "--out", str(tmp_path))
    with pytest.warns(UserWarning, match="unrecognized nn.Module"):
        code, _, err = command(*ask)
    assert code == 2
    assert "not exact for this network" in err


def test_a_file_cannot_be_averaged(command, demo, tmp_path):
    np.save(tmp_path / "image.npy", np.ones((32, 32)))
    code, _, err = command("explain", str(demo.onnx), str(tmp_path / "image.npy"), "--by-target", "--out", "x")
    assert code == 2
    assert "no data set" in err
