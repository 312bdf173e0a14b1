"""What `stm predict` writes of a data set with more samples than pictures are made of."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.model import asking
from deploy.model.metadata import ModelMetadata
from deploy.model.questions import Question
from pipelines import predict

COUNT = asking.MAPS_AT_MOST + 4
ABOUT = {
    "task": "impurity",
    "input": {"kind": "x", "channels": 2, "height": 16, "width": 16, "pixel_nm": 0.4, "biases": [0.1, 0.2]},
    "targets": [{"name": "impurity"}],
}


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask a model with one impurity in each image about so many of them."""
    session = SimpleNamespace(metadata=ModelMetadata.model_validate(ABOUT), provider="cpu")
    rng = np.random.default_rng(0)

    def call(count):
        scores = np.zeros((count, 1, 16, 16), np.float32)
        scores[np.arange(count), 0, rng.integers(3, 13, count), rng.integers(3, 13, count)] = 0.9
        images = rng.normal(size=(count, 2, 16, 16)).astype(np.float32)
        question = Question(images, [f"sample-{row:05d}" for row in range(count)])
        outputs = {"prediction": scores}
        monkeypatch.setattr(predict, "Session", lambda *_, **__: session)
        monkeypatch.setattr(predict, "local_file", lambda _: Path("model.onnx"))
        monkeypatch.setattr(predict.questions, "read_question", lambda *_: question)
        answers = asking.answer_from(session, question, outputs)
        monkeypatch.setattr(predict.asking, "answer", lambda *_: (answers, outputs))
        parser = argparse.ArgumentParser()
        predict.arguments(parser)
        return predict.ask(parser.parse_args(["model.onnx", "data.zarr", "--out", str(tmp_path / "out")]), None)

    return call


def test_every_sample_has_its_table_and_that_pictures_are_of_the_first_is_said(ask):
    found = ask(COUNT)
    tables, pictures = ([path for path in found["files"] if path.endswith(end)] for end in (".csv", ".png"))
    assert len(tables) == len(found["answers"]) == COUNT
    assert all(Path(path).is_file() for path in tables)
    assert len(pictures) == asking.MAPS_AT_MOST
    assert found["notes"] == [
        f"data.zarr: pictures of the first 16 of {COUNT} samples only, tables of all; --sample chooses another"
    ]


def test_nothing_is_said_where_all_have_pictures(ask):
    assert ask(3)["notes"] == []
