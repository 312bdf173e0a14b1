"""What identifies a training before it is done, and what its baselines are fitted to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipelines import settings
from pipelines.learning.fitting import load_parts, recipe
from pipelines.learning.recording import baseline_scores
from pipelines.settings import SplitConfig
from stm_models.errors import InputError
from stm_models.tasks.registry import get


@pytest.fixture
def identified():
    """Recipe of a training that starts from a file."""
    parts = SimpleNamespace(samples=SimpleNamespace(attributes={"digest": "0" * 64, "input": {}}))

    def call(weights):
        values = {"train": {"network": "resnet18", "options": {} if weights is None else {"weights": str(weights)}}}
        chosen = settings.load("hubbard", "test", recorded=values)
        return recipe(chosen, chosen.train, parts)

    return call


def test_the_weights_that_a_training_starts_from_count_by_what_they_hold(identified, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file({"a": torch.zeros(3)}, first)
    save_file({"a": torch.zeros(3)}, second)
    before = identified(first)
    assert before == identified(second) != identified(None)
    save_file({"a": torch.ones(3)}, first)
    assert identified(first) != before == identified(second)
    first.unlink()
    with pytest.raises(InputError, match="expected an existing file"):
        identified(first)


class Counting:
    """A task with one baseline, scored by the number of samples that it was fitted to."""

    metric, larger_is_better = "fitted", False

    def baselines(self, train, seed):
        return {"mean": lambda samples: np.full(len(samples), len(train))}

    def calibrate(self, prediction, held):
        return {"fitted": int(prediction[0])}

    def metrics(self, prediction, samples, calibration):
        assert calibration["fitted"] == prediction[0]
        return {"fitted": float(prediction[0])}


def test_baselines_are_fitted_to_what_the_network_beside_them_is(data):
    parts = load_parts(data, get("hubbard"), SplitConfig(unseen_fraction=0.2, judged=("clean", "mild")))
    one, both = len(parts.train), len(parts.train) + len(parts.validation)
    found = {
        refit: baseline_scores(Counting(), parts, parts.validation, 0, refit=refit)["mean"] for refit in (False, True)
    }
    assert set(found[False].values()) == {one}
    assert found[True].pop("fitted") == one
    assert {"unseen_fitted", "unseen_robust_fitted"} <= set(found[True])
    assert set(found[True].values()) == {both}
