"""What identifies a training before it is done."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from pipelines import settings
from pipelines.learning.fitting import recipe
from stm_models.errors import InputError


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
