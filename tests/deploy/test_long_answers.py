"""Answers that are long: how much of them is written as JSON, and what waits for a client that does not read."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER
from deploy.serving.server import running
from deploy.serving.session import Session

sys.path.insert(0, str(Path(__file__).parents[1]))
ask = importlib.import_module("http_asking").ask


@pytest.fixture
def ran(monkeypatch):
    """Numbers of images of every run."""
    rows = []
    plain = Session.run

    def counting(self, image, *more):
        rows.append(len(image))
        return plain(self, image, *more)

    monkeypatch.setattr(Session, "run", counting)
    return rows


def question(images, names, binary):
    """Body and headers of a binary question, whose answer is binary or not."""
    tensor = {"name": "image", "shape": images.shape, "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": images.nbytes}
    head = {"inputs": [tensor], "outputs": [{"name": name} for name in names]}
    text = json.dumps({**head, "parameters": {"binary_data_output": binary}}).encode()
    return text + images.tobytes(), {HEADER: str(len(text))}


@pytest.mark.parametrize(
    ("path", "names", "binary", "status"),
    [
        ("infer", ["gradient"], False, 200),
        ("infer", ["gradient", "distance"], False, 413),
        ("infer", ["gradient", "distance"], True, 200),
        ("explain", ["gradient"], False, 413),  # and all that is no map
        ("explain", ["gradient"], True, 200),
    ],
)
def test_what_would_be_too_long_in_json_is_refused_before_it_is_computed(
    session, toy, ran, path, names, binary, status
):
    images = toy.images(64)
    with running({"m": session}, limits=Limits(json_bytes=20 * images.size)) as url:
        ran.clear()
        got, answer, _ = ask(url, "POST", f"/v2/models/m/{path}", *question(images, names, binary))
    assert got == status, answer
    assert ran == ([64] if status == 200 else [])
    if status == 413:
        assert b"numbers in JSON, at most 2560 are written: ask infer or explain for binary tensors" in answer


@pytest.mark.parametrize(("most", "status"), [(1599, 413), (1600, 200)])
def test_so_it_is_for_invocations(map_file, ran, most, status):
    body = json.dumps({"inputs": np.zeros((4, 2, 4, 5), int).tolist()}, separators=(",", ":"))
    assert len(body) < 1000
    with running({"m": Session(map_file, provider="cpu", threads=1)}, limits=Limits(json_bytes=most)) as url:
        ran.clear()
        got, answer, _ = ask(url, "POST", "/invocations", body)
    assert got == status, answer
    assert ran == ([4] if status == 200 else [])
    assert (b"80 numbers in JSON, at most 79 are written" in answer) is (status == 413)
