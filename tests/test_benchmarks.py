"""Benchmarks compare the same work and time all of it; a table of errors is of the same data, and made once."""

from __future__ import annotations

import importlib.util
import json
import sys
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipelines import executors, settings
from pipelines.executors import SimulationExecutor
from pipelines.learning.parts import load_parts
from pipelines.scoring import robustness
from stm_models.data.dataset import load
from stm_models.errors import InputError
from stm_models.networks import bundle as bundles
from stm_models.networks.cost import cost
from stm_models.training.predict import predict

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Load a benchmark as a module; what it sets for its process is undone."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS.parent)  # benchmarks/tracking.py is not the package

    def loaded(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.fixture
def training(benchmark_module):
    return benchmark_module("training")


class Here(SimulationExecutor):
    """Simulates in this process: starting others takes longer than the states of a test."""

    def submit(self, fn, /, *args, **kwargs):
        """Do it now."""
        done = Future()
        done.set_result(fn(*args, **kwargs))
        return done

    def abandon(self):
        """Nothing is queued."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all tables of this module keep their data."""
    return tmp_path_factory.mktemp("accuracy")


@pytest.fixture
def accuracy(benchmark_module, folder, monkeypatch, capsys):
    """The benchmark of task hubbard as a module, and its table as a function of options, at sizes for tests."""
    module = benchmark_module("hubbard_accuracy")
    monkeypatch.setattr(module, "COPIES", 2)
    monkeypatch.setattr(executors, "create", lambda *about: Here())
    for path in folder.glob("rows/*.json"):
        path.unlink()

    def table(*options):
        small = ["--preset", "test", "--set", "simulate.replicates=3", "--size", "16", "--states", "6", "--epochs", "2"]
        own = ["--seeds", "2", "--workers", "1", "--keep", str(folder), "--json", *options]
        monkeypatch.setattr(sys, "argv", ["hubbard_accuracy.py", *small, *own])
        module.main()
        return json.loads(capsys.readouterr().out)

    return module, table


def test_both_sides_train_alike(training, tmp_path):
    labels = np.linspace(0, 6, 6, dtype=np.float32)[:, None]
    pictures = training.Pictures(training.write_pictures(tmp_path, 6, 40), labels, 16)
    images = np.stack([pictures[row][0].numpy() for row in range(6)])
    assert images.shape == (6, 1, 16, 16)
    assert images.std() > 0.01
    assert training.loss_difference(pictures, images, labels) < 1e-5
    assert training.loss_difference(pictures, images, labels + 1) > 1e-2
    assert training.loss_difference(pictures, np.roll(images, 1, axis=0), labels) > 1e-6


def test_every_step_is_counted_once(training, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(training.time, "process_time", lambda: next(clock))
    watch = training.Stopwatch()
    inner = watch.timed(lambda: None)
    watch.timed(lambda: [inner(), inner()])()
    assert watch.seconds == 1  # from one look at the clock to the next: those within did not look
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    config = training.config_of(epochs=2, options={"hidden": 4})
    fit = training.Fit(rng.random((8, 1, 8, 8), np.float32), rng.random((8, 1)), config, tmp_path / "state.pt")
    assert training.over_step(fit) > 1


def test_table_of_hubbard_judges_all_rows_alike_and_once(accuracy, folder, monkeypatch):
    module, table = accuracy
    rows = ["mean", "conv", "ours"]
    made = table("--rows", *rows)
    assert list(made["rows"]) == rows
    chosen = settings.load("hubbard", "test")
    parts, fresh = load_parts(folder / "data.zarr", chosen.task, chosen.split), load(folder / "fresh.zarr")
    # Of the mean all is known beforehand, on each set of samples, however the images are perturbed.
    truths = {"validation": parts.validation.targets, "unseen": parts.unseen.targets, "fresh": fresh.targets}
    assert made["samples"] == {place: len(values) for place, values in truths.items()}
    for place, values in truths.items():
        expected = np.abs(values - parts.train.targets.mean()).mean()
        scores = made["rows"]["mean"]["scores"][place]
        assert [scores[key]["mean"] for key in ("mae", "noisy.mae", "robust_mae")] == pytest.approx([expected] * 3)
    assert not np.isin(fresh.targets.round(9), parts.samples.targets.round(9)).any()
    trained = {name: made["rows"][name]["recipe"]["train"] for name in ("conv", "ours")}
    assert trained["conv"].items() >= {"optimiser": "adam", "perturbation": "clean", "epochs": 2}.items()
    assert trained["ours"]["network"] == chosen.train.network
    assert made["rows"]["conv"]["parameters"] == cost("conv", (1, 16, 16)).parameters
    assert made["rows"]["conv"]["flops"] == cost("conv", (1, 16, 16)).flops
    for name in trained:
        scores = made["rows"][name]["scores"]["unseen"]
        sets = [scores[key] for key in ("mae", "mild.mae", "symb.mae", "noisy.mae", "instrument.mae")]
        assert scores["robust_mae"]["mean"] == pytest.approx(np.mean([one["mean"] for one in sets]))
        assert scores["mae"]["deviation"] > 0

    monkeypatch.setattr(module, "learn", lambda *args, **kwargs: pytest.fail("trained again"))
    assert table("--rows", *rows) == made
    both = table("--rows", "ours, together")["rows"]["ours, together"]
    models = [bundles.load(folder / "models" / f"ours-{seed}" / "final").model for seed in range(2)]
    mean = np.mean([predict(one, parts.unseen.images) for one in models], axis=0)
    assert both["scores"]["unseen"]["mae"]["mean"] == pytest.approx(
        np.abs(mean - parts.unseen.targets).mean(), rel=1e-5
    )
    assert both["fits"] == 1
    assert both["parameters"] == 2 * made["rows"]["ours"]["parameters"]
    monkeypatch.setattr(robustness, "SEED", 1)  # other perturbed images: the same networks are judged on them
    for name, row in table("--rows", "conv", "ours")["rows"].items():
        now, before = row["scores"]["fresh"], made["rows"][name]["scores"]["fresh"]
        assert now["mae"] == before["mae"]
        assert now["noisy.mae"] != before["noisy.mae"]
        assert row["cpu_seconds"] == made["rows"][name]["cpu_seconds"]
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        table("--rows", "conv", "--set", "split.seed=1")  # another split: other results


def test_regression_of_hubbard_is_fitted_to_perturbed_copies(accuracy, monkeypatch):
    module, table = accuracy
    given = {}

    def fit(names, images, targets, groups, seed):
        given[seed] = (images, targets, groups)
        return {name: lambda shown: np.zeros((len(shown), 1)) for name in names}

    monkeypatch.setattr(module, "fit_baselines", fit)
    table("--rows", "kernel ridge, mixed")
    (images, targets, groups), (others, _, _) = given[0], given[1]
    half = len(images) // 2
    assert np.array_equal(targets[:half], targets[half:])
    assert np.array_equal(groups[:half], groups[half:])
    assert not np.array_equal(images[:half], images[half:])
    assert not np.array_equal(images, others)
    assert np.abs(images[:half] - images[half:]).max() < 1  # of the same states


def test_table_of_hubbard_refuses_other_states(accuracy, folder):
    module, table = accuracy
    table("--rows", "mean")
    one, other = (load(folder / name) for name in ("data-16.zarr", "fresh.zarr"))
    module._same_states(one, one)
    with pytest.raises(InputError, match="holds other states than"):
        module._same_states(one, other)


def test_seconds_to_an_error_are_a_part_of_the_training(accuracy, folder, monkeypatch):
    module, table = accuracy
    fits = []
    for mark in (0.0, 1e9):
        monkeypatch.setattr(module, "MARK", mark)
        for path in folder.glob("rows/*.json"):
            path.unlink()
        fits.append(table("--rows", "conv", "--seeds", "1")["rows"]["conv"])
    never, soon = fits
    assert never["seconds_to_mark"] == [None]
    assert 0 < soon["seconds_to_mark"][0] < soon["cpu_seconds"]["mean"]


def test_the_limit_of_noise_is_that_of_a_linear_model(benchmark_module):
    """Of images a + U b + nu c the Fisher information is known: what b has beside c counts, and what was known."""
    limit, rng = benchmark_module("noise_limit"), np.random.default_rng(0)
    parameters, (a, b, c) = rng.uniform(-1, 1, (200, 2)), rng.standard_normal((3, 50))
    images = a + parameters[:, :1] * b + parameters[:, 1:] * c
    for sigma in (0.1, 10.0):
        information = np.array([[b @ b, b @ c], [b @ c, c @ c]]) / sigma**2 + 3 * np.eye(2)
        found = limit.squared_errors(parameters, images, sigma, np.array([0, 7]))
        np.testing.assert_allclose(found, np.linalg.inv(information)[0, 0], rtol=1e-6)


def test_maps_that_cannot_be_compared_are_not_alike(benchmark_module, monkeypatch):
    for name in ("captum", "captum.attr", "shap"):  # not needed here, and slow to import
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    positive = benchmark_module("explanations").positive
    maps = np.random.default_rng(0).normal(size=(2, 1, 5, 5))
    kept = np.maximum(maps[:, 0], 0)
    assert positive(maps, kept) == pytest.approx(0, abs=1e-12)
    assert positive(maps, kept[::-1]) > 1e-3
    one = np.stack([maps[0], -np.abs(maps[1])])  # the second map has no positive part
    assert positive(one, kept) == pytest.approx(0, abs=1e-12)
    assert np.isnan(positive(-np.abs(maps), kept))  # below no limit


@pytest.mark.parametrize("what", ["density", "ldos", "image"])
def test_states_made_plainly_must_be_the_same(benchmark_module, monkeypatch, what):
    simulate = benchmark_module("simulate")
    errors = {"density": 3e-7, "ldos": 4e-5, "image": 7e-6}
    monkeypatch.setattr(sys, "argv", ["simulate.py", "--quick"])
    monkeypatch.setattr(simulate, "on_gpu", lambda case: None)
    monkeypatch.setattr(
        simulate, "compare", lambda case: {"ratio": 1.0, "peak_memory_gib": 1.0, "errors": errors}
    )  # fmt: skip
    simulate.main()
    errors[what] *= 100
    with pytest.raises(AssertionError, match=f"{what} differs"):
        simulate.main()


def test_without_a_browser_the_pages_are_left_out_and_the_reason_told(benchmark_module, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    ratios, detail = benchmark_module("comparison_ui").compared("http://ours", "http://stock", 100, 1)
    assert not ratios
    assert detail["left_out"].startswith("Chromium is not installed (Debian: chromium)")
    assert detail["left_out"] in capsys.readouterr().err
