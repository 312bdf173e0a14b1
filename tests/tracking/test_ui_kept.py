"""What the comparison page keeps of pictures: the last ones, up to a size."""

from __future__ import annotations

import numpy as np

from stm_models.data.panel import Panel
from tracking.ui import panels
from tracking.ui.kept import Kept


def test_the_last_values_are_kept_up_to_a_size():
    made = []

    def get(key, size):
        return kept.get(key, lambda: made.append(key) or bytes(size))

    kept = Kept(100)
    for key in "abac":
        assert get(key, 40) == bytes(40)
    assert made == ["a", "b", "c"]  # b, not asked for since, had to go
    get("a", 40)
    get("b", 40)
    assert made == ["a", "b", "c", "b"]
    assert get("large", 101) == bytes(101)
    assert get("large", 101) == bytes(101)
    assert made[4:] == ["large", "large"]


def test_pictures_are_kept_without_the_arrays_that_they_are_of(monkeypatch):
    kept = Kept(10**6)
    monkeypatch.setattr(panels, "_pictures", kept)
    images = np.random.default_rng(0).random((2, 1, 64, 64), np.float32)
    panel = Panel(np.array(["a", "b"]), np.arange(2), images, np.zeros((2, 1)), np.array(["U"]), "d", {})
    scale = panels.Scale("input", 0.0, 1.0, "grey", False)
    first, second = (panels.picture(panel, row, 0, scale) for row in (0, 1))
    assert first != second
    assert panels.picture(panel, 0, 0, scale) is first
    (digest, shape, _), _ = kept._values
    assert (len(digest), shape) == (16, (64, 64))
