"""Model files that were cut, changed, made elsewhere, or made by something newer."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from deploy.model.session import Session
from stm_models.errors import InputError
from stm_models.files import sha256


def _refused(path, *words):
    with pytest.raises(InputError) as caught:
        Session(path, provider="cpu", threads=1)
    text = str(caught.value)
    assert "\n" not in text
    for word in (path.name, *words):
        assert word in text


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated(model_file, tmp_path, share):
    content = model_file.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: int(share * len(content))])
    _refused(cut, "again")


def test_a_changed_byte_is_refused_or_gives_the_file_another_hash(model_file, toy, tmp_path):
    content = model_file.read_bytes()
    known = hashlib.sha256(content).hexdigest()
    changed, images = tmp_path / "changed.onnx", toy.images(2)
    rng = np.random.default_rng(0)
    noticed = 0
    for place in rng.choice(len(content), 40, replace=False):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        changed.write_bytes(altered)
        assert sha256(changed) != known
        try:
            session = Session(changed, provider="cpu", threads=1)
            assert session.metadata.sha256 == sha256(changed)
            session.run(images)
        except (InputError, Fail, InvalidArgument, RuntimeException):  # some graphs load and do not run
            noticed += 1
    assert noticed > 5


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda model: setattr(model, "ir_version", 99), "99"),
        (lambda model: setattr(model.opset_import[0], "version", 99), "99"),
        (lambda model: setattr(model.graph.node[0], "op_type", "Foreign"), "Foreign"),
        (lambda model: setattr(model.graph.node[0], "domain", "elsewhere"), "elsewhere"),
    ],
)
def test_newer_and_foreign_graphs(model_file, tmp_path, change, word):
    model = onnx.load(model_file)
    change(model)
    onnx.save(model, tmp_path / "foreign.onnx")
    _refused(tmp_path / "foreign.onnx", word, "again")


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        (False, "metadata entry"),
        ("{", "no valid JSON"),
        ("[]", "no JSON object"),
        (json.dumps({"schema": 3}), "upgrade"),
        (json.dumps({"schema": 2, "task": "toy"}), "incomplete"),
    ],
)
def test_metadata_that_are_missing_damaged_or_newer(toy, tmp_path, metadata, word):
    _refused(toy.write(tmp_path / "m.onnx", metadata=metadata), word)


def test_weights_that_lie_in_another_file(model_file, tmp_path):
    model = onnx.load(model_file)
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, size_threshold=0, location="apart.data")
    _refused(tmp_path / "apart.onnx", "again")
