"""Scales that nobody has chosen are each plot's and channel's own; what a logarithmic axis leaves out is counted."""

from __future__ import annotations

import re

import numpy as np
import pytest
from starlette.testclient import TestClient

from stm_models.data import panel
from tracking import runs
from tracking.store import connect
from tracking.ui.app import create_app

CURVES = {
    "val_loss": [0.4, 0.1, 0.01],
    "energy_error": [0.5, -0.25, 0.0],
    "score": [-3.0, -2.0, -1.0],
    "mae": [-1.0, -2.0, 0.0],
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A run with curves that are positive, in part and not at all, and pictures of a wide and a narrow channel."""
    folder = tmp_path_factory.mktemp("scales")
    store = connect(f"sqlite:///{folder}/mlflow.db")
    wide = np.geomspace(1e-6, 1, 16, dtype=np.float32).reshape(4, 4)
    images = np.stack([np.stack([wide, np.linspace(0.5, 1, 16, dtype=np.float32).reshape(4, 4)])])
    np.savez(
        folder / "panel.npz", schema=np.array(panel.SCHEMA), names=np.array(["one"]), rows=np.array([0]),
        images=images, targets=np.array([[1.0]]), target_names=np.array(["U"]), digest=np.array("d"),
    )  # fmt: skip
    with runs.start(store, "scales", "run") as run:
        for step in range(3):
            run.metrics({name: values[step] for name, values in CURVES.items()}, step)
        run.artifact(folder / "panel.npz")
    return TestClient(create_app(store), base_url="http://127.0.0.1"), run.id


def shown(filled, path):
    page, run = filled
    text = page.get(f"/{path.replace('RUN', run)}").text
    select = text.partition('<select name="scale"')[2].partition("</select>")[0]
    assert select.count("<option") == 3
    chosen = re.findall(r'<option value="(\w*)" selected>', select)
    captions = re.findall(r"<figcaption>(.*?) ·", text)
    return chosen, captions[0] if captions else text


@pytest.mark.parametrize(
    ("query", "scale", "caption"),
    [
        ("metric=val_loss", "", "val_loss over the epochs"),
        ("metric=val_loss&scale=log", "log", "val_loss over the epochs"),
        ("metric=val_loss&scale=linear", "linear", "val_loss over the epochs"),
        ("metric=energy_error", "", "energy_error over the epochs: 2 values ≤ 0 not shown on the logarithmic axis"),
        ("metric=energy_error&scale=linear", "linear", "energy_error over the epochs"),
        ("metric=score", "", "score over the epochs"),
        ("metric=score&scale=log", "log", "score over the epochs: no value above 0 for a logarithmic axis"),
        ("metric=mae", "", "mae over the epochs"),
    ],
)
def test_the_scale_of_a_curve(filled, query, scale, caption):
    assert shown(filled, f"compare?runs=RUN&{query}") == ([scale], caption)


def test_the_scale_of_pictures(filled):
    for channel, query, scale, logarithmic in (
        (0, "", "", True), (1, "", "", False), (0, "&scale=linear", "linear", False), (1, "&scale=log", "log", True),
    ):  # fmt: skip
        chosen, text = shown(filled, f"panels?runs=RUN&channel={channel}{query}")
        assert chosen == [scale]
        assert ("<span>log</span>" in text) == logarithmic
