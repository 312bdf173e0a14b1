"""`stm reproduce hubbard` through the command line: what its report says is what its runs and its data say."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

from pipelines.cli import main
from stm_models.data.dataset import load
from stm_models.explain.methods import compute
from stm_models.networks import bundle
from stm_models.networks.bundle import Bundle
from stm_models.tasks.hubbard.perturbations import SETS
from stm_models.tasks.hubbard.regions import BRAGG, CENTRE, regions
from stm_models.tasks.perturbation import find
from stm_models.training.perturbations import perturbed
from tracking import runs
from tracking.store import Store, connect


@dataclass(frozen=True)
class Made:
    """Where it is, what was printed, and the report."""

    store: Store
    result: dict[str, Any]
    report: dict[str, Any]
    page: str

    def bundle(self, method: str) -> Bundle:
        (run_id,) = self.report["table"][method]["runs"]
        return bundle.load(runs.download(self.store, run_id, "bundle"))


def reproduce(*more: str) -> dict[str, Any]:
    arguments = ["reproduce", "hubbard", "--preset", "test", "--workers", "1", "--out", "again", "--json", *more]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    assert code == 0, err.getvalue()
    return json.loads(out.getvalue().splitlines()[-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reproduced"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = reproduce()
        report = json.loads(Path("again/report.json").read_text(encoding="utf-8"))
        yield Made(connect(), result, report, Path("again/report.md").read_text(encoding="utf-8"))


def _images(name: str) -> tuple[np.ndarray, np.ndarray]:
    data = xarray.open_zarr(f"again/data/{name}.zarr")
    return data.image.values, data.U.values.astype(float)


def _answers(found: Bundle, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return found.model(torch.from_numpy(np.ascontiguousarray(images, np.float32)))[:, 0].numpy().astype(float)


@pytest.mark.parametrize("method", ["linear", "conv", "lattice"])
def test_errors_are_those_of_the_runs_and_of_their_models(made, method):
    row, found = made.report["table"][method], made.bundle(method)
    logged = runs.get(made.store, row["runs"][0])
    assert logged.parent == made.result["run_id"]
    for name, store in (("test", "test"), ("test-U", "test-U"), ("layer distance 2.9", "layer-distance-2.9")):
        images, true = _images(store)
        error = np.abs(_answers(found, images) - true)
        cell = row["sets"][name]
        assert cell["mae"]["mean"] == pytest.approx(error.mean(), rel=1e-4)
        assert cell["r2"]["mean"] == pytest.approx(1 - (error**2).sum() / ((true - true.mean()) ** 2).sum(), rel=1e-3)
        assert logged.metrics[f"{name}.mae"] == cell["mae"]["mean"]
        with torch.inference_mode():
            p_values = found.answers(torch.from_numpy(images))["novelty"].numpy()
        assert cell["outside"]["mean"] == pytest.approx((p_values < 0.01).mean())
        assert f" {cell['mae']['mean']:.3f}" in made.page
    samples = load("again/data/test.zarr")
    mild = perturbed(find(SETS, "mild"), samples, 0)
    assert not np.array_equal(mild, samples.images)
    error = np.abs(_answers(found, mild) - samples.targets[:, 0]).mean()
    assert row["sets"]["test mild"]["mae"]["mean"] == pytest.approx(error, rel=1e-4)
    assert row["runs"][0][:8] in made.page


def test_nothing_that_is_tested_on_is_learnt(made):
    (known,) = {run.tags["data.digest"] for run in runs.find(made.store, "reproduce hubbard") if run.parent}
    assert known == xarray.open_zarr("again/data/training.zarr").attrs["digest"]
    known = xarray.open_zarr("again/data/training.zarr")
    for name in ("test", "test-U"):
        tested = xarray.open_zarr(f"again/data/{name}.zarr")
        assert not set(tested.filling.values) & set(known.filling.values)  # drawn for each state
        same = np.isin(np.round(tested.U.values, 6), np.round(known.U.values, 6))
        assert same.all() if name == "test" else not same.any()


def test_a_ring_is_left_out(made):
    images, true = _images("test-U")
    spec = xarray.open_zarr("again/data/test-U.zarr").attrs["input"]
    side = images.shape[-1]
    kx, ky = (np.linspace(-spec[name], spec[name], side) for name in ("kx_max", "ky_max"))
    distance = np.hypot(*np.meshgrid(kx, ky))
    number = np.minimum((distance / distance.max() * 3).astype(int), 2)
    row = made.report["rings"]["methods"]["lattice"]
    carried = [one["mae"]["mean"] for one in made.report["rings"]["fitted"]]
    assert min(carried) < 0.3 < made.report["table"]["mean"]["sets"]["test-U"]["mae"]["mean"]
    for ring in range(3):
        changed = np.where(number == ring, images.mean(axis=0), images)
        error = np.abs(_answers(made.bundle("lattice"), changed) - true).mean()
        assert row["without"][ring]["mean"] == pytest.approx(error, rel=1e-3)


def test_maps_over_the_target(made):
    (one,) = made.report["attention"]["conv"]
    samples, found = load("again/data/test-U.zarr"), made.bundle("conv")
    side = samples.images.shape[-1]
    rows = [{key: float(values[n]) for key, values in samples.coordinates.items()} for n in range(len(samples))]
    masks = [regions(samples.attributes, row, (side, side)) for row in rows]
    for method, record in one["methods"].items():
        explain = compute(found, method)
        maps = np.abs(explain(torch.from_numpy(samples.images), None).detach().numpy()).sum(axis=1)
        assert sum(record["samples"]) == len(samples)
        for name in (CENTRE, BRAGG):
            shares = [own[mask[name]].sum() / own.sum() for own, mask in zip(maps, masks, strict=True)]
            mean = np.average(record["share"][name]["mean"], weights=record["samples"])
            assert mean == pytest.approx(np.mean(shares), rel=1e-4)
        assert record["statement"] in made.page
        assert f"attention_{one['figures'][method]}.png" in made.page
    assert set(one["methods"]) == {"grad_cam", "guided"}


def test_the_report_is_whole_and_its_pictures_are_there(made):
    pictures = [line[4:-1] for line in made.page.splitlines() if line.startswith("![](")]
    assert {"errors.png", "similarity.png", "components.png", "efficiency.png", "rings.png"} <= set(pictures)
    for name in pictures:
        assert Path("again", name).read_bytes().startswith(b"\x89PNG")
        assert str(Path("again", name).absolute()) in made.result["files"]
    assert sum(Path("again", name).stat().st_size for name in pictures) < 2**20
    values, level = _images("test")
    flat = values.reshape(len(values), -1).astype(float)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    order = np.argsort(level)
    np.testing.assert_allclose(made.report["similarity"]["matrix"], (flat @ flat.T)[np.ix_(order, order)], atol=1e-6)
    assert made.result["run_id"] in made.page
    assert made.report["table"]["kernel_ridge"]["sets"]["test"]["mae"]["mean"] < 0.2
    assert made.report["table"]["mean"]["sets"]["test"]["mae"]["mean"] == pytest.approx(
        np.abs(level - _images("training")[1].mean()).mean(), abs=0.15
    )


def test_what_is_finished_is_kept(made):
    smaller = reproduce("--set", "fractions=[];noises=[]", "--set", "layer_distances=[]", "--set", "networks=[linear]")
    assert smaller["runs"].keys() == {"linear, seed 0"}
    assert smaller["run_id"] != made.result["run_id"]
    again = reproduce()
    assert (again["run_id"], again["runs"]) == (made.result["run_id"], made.result["runs"])
    report = json.loads(Path("again/report.json").read_text(encoding="utf-8"))
    assert report["table"] == made.report["table"]
