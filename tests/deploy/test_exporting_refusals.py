"""What is never exported: wrong settings, metadata and models, and files that differ from their model."""

import json
import re
import subprocess

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deploy.exporting import export as module
from deploy.exporting import graph
from deploy.exporting import metadata as about
from deploy.exporting import write as writing
from deploy.exporting.config import ExportConfig
from deploy.exporting.export import ExportError, export
from deploy.exporting.parts import Parts
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.networks import bundle as bundles


def test_graph_that_differs_writes_nothing_and_keeps_the_old_file(exports, tmp_path, monkeypatch):
    one = exports["mlp"]

    def build(*arguments):
        model = onnx.load_from_string(one.content)
        del model.metadata_props[:]
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
        values = numpy_helper.to_array(tensor) * np.float32(1.01)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(writing, "build", build)
    old = tmp_path / "old.onnx"
    old.write_bytes(b"precious")
    for out in (old, tmp_path / "new.onnx"):
        with pytest.raises(ExportError, match="relative error"):
            writing.write(one.bundle, out, one.metadata)
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]
    assert old.read_bytes() == b"precious"


def test_operator_without_counterpart_is_an_export_error():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x[:, 0] + x[:, 0].mT)

    with pytest.raises(ExportError, match=r"no ONNX graph: .*eigh"):
        graph.build(Parts(lambda x: {"prediction": Odd()(x)}, {}), (1, 4, 4))


def test_worker_tells_a_users_mistake_in_one_line(exports):
    mistake = exports["conv"].mistake
    assert isinstance(mistake, InputError)
    assert re.search(r'task is "other", but .*conv was trained with "hubbard"', str(mistake))
    assert "\n" not in str(mistake)
    assert list((exports["conv"].bundle.parent / "mistaken").iterdir()) == []


def test_maps_without_an_onnx_form_are_left_out_and_told(exports, tmp_path, monkeypatch):
    asked = []

    def ask(request):
        asked.append(request)
        if request.get("trial") == "guided" or ("trial" not in request and not request["left_out"]):
            return {"error": "graph", "message": "no ONNX form: reason"}
        if "trial" in request:
            return {}
        return {"sha256": "s", "opset": 20, "parity": {}, "size_bytes": 1, "explanations": ["gradient"],
                "refused": request["left_out"], "precision": {}}  # fmt: skip

    monkeypatch.setattr(module, "_ask", ask)
    report = export(exports["conv"].bundle, tmp_path / "a.onnx", exports["conv"].metadata)
    assert report.refused == {"guided": "no ONNX form: reason"}
    assert [request.get("trial", "all") for request in asked] == [
        "all", None, "gradient", "grad_x_input", "grad_cam", "guided", "all",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"explanations": ("lime",)}, "unknown explanation 'lime'"),
        ({"ig_step": 3}, "ig_steps"),
        ({"ig_steps": 0}, "ig_steps"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_wrong_settings_of_an_export_are_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        validate(ExportConfig, values, "export")
    assert "\n" not in str(caught.value)


def test_model_without_novelty_is_refused(exports, tmp_path):
    one = exports["mlp"]
    bundle = bundles.load(one.bundle)
    bundles.save(tmp_path / "bare", bundle.model, None, bundle.info)
    with pytest.raises(InputError, match="no distance to the training data"):
        writing.write(tmp_path / "bare", tmp_path / "a.onnx", one.metadata)


def test_an_interval_that_the_metadata_do_not_know_is_refused(exports, tmp_path):
    one = exports["mlp"]
    with pytest.raises(InputError, match=r"interval is None, but .* with one"):
        writing.write(one.bundle, tmp_path / "a.onnx", {**one.metadata, "interval": None})


def _valid():
    return {
        "task": "t",
        "input": {},
        "targets": [{"name": "U"}],
        "explained": 0,
        "data": {"recipe": "r", "digest": "d"},
        "run_id": None,
        "git_commit": None,
        "metrics": {},
        "distance": {"quantiles": {"0.5": 1.0}},
    }


@pytest.mark.parametrize("key", _valid())
def test_missing_metadata_are_named(key):
    values = _valid()
    assert about.check(values) == {**values, "calibration": {}, "interval": None, "novelty": None}
    del values[key]
    with pytest.raises(InputError, match=key):
        about.check(values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("explained", 1, "explained is 1, but there are 1 targets"),
        ("metrics", {"mae": float("nan")}, "metrics"),
        ("input", {"a": float("inf")}, "finite"),
        ("input", {"a": object()}, "metadata of the export"),
        ("distance", {"quantiles": {}}, "quantiles"),
        ("data", {"recipe": "r"}, "digest"),
        ("versions", {}, "unknown key 'versions'"),
    ],
)
def test_wrong_metadata_are_refused(key, value, message):
    with pytest.raises(InputError, match=message):
        about.check({**_valid(), key: value})


@pytest.mark.parametrize("out", ["file/sub/a.onnx", "folder.onnx", "a.pt"])
def test_unwritable_out_is_refused_at_once(tmp_path, out):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InputError, match=r"cannot write|ends in \.onnx"):
        export(tmp_path / "bundle", tmp_path / out, _valid())


def test_a_budget_without_a_smaller_precision_is_refused_at_once(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(
        InputError, match=r"export\.budget is \{'U': 0\.1\}, but .* fp32 .*: leave it out, or give --prec"
    ):
        export(tmp_path / "bundle", tmp_path / "a.onnx", _valid(), ExportConfig(budget={"U": 0.1}))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_missing_bundle_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="no model bundle at"):
        export(tmp_path / "nothing", tmp_path / "a.onnx", _valid())


@pytest.mark.parametrize(
    ("code", "out", "err", "message"),
    [
        (1, json.dumps({"error": "export", "message": "table"}), "noise", "^table$"),
        (1, "", "x" * 9000 + "\nValueError: odd", "the exporting process failed(.|\n)*ValueError: odd$"),
        (-9, "", "", "ended by signal 9(.|\n)*memory"),
    ],
)
def test_failures_of_the_worker_are_told(tmp_path, monkeypatch, code, out, err, message):
    done = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    old = tmp_path / "a.onnx"
    old.write_bytes(b"precious")
    with pytest.raises(ExportError, match=message) as caught:
        export(tmp_path, old, _valid())
    assert len(str(caught.value)) < 2000
    assert old.read_bytes() == b"precious"
