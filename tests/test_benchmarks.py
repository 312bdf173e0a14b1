"""What the benchmark of the trainer compares is the same work, and what it times is all of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def training(monkeypatch):
    """The benchmark as a module; what it sets for its process is undone."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("benchmark_of_training", BENCHMARKS / "training.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


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
