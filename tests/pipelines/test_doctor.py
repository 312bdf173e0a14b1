from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from pipelines import doctor
from tracking.store import connect


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(doctor, "_ROOM", 0)
    monkeypatch.setattr(doctor.provider, "cuda_devices", lambda: 0)
    monkeypatch.chdir(tmp_path)


def _look():
    found = doctor.run(argparse.Namespace())
    json.dumps(found, allow_nan=False)
    return found


def test_an_empty_folder_stays_empty(tmp_path):
    found = _look()
    assert list(tmp_path.iterdir()) == []
    assert found["store"] == {
        "location": f"sqlite:///{tmp_path}/mlflow.db", "experiments": [], "note": "not made yet",
    }  # fmt: skip
    assert found["problems"] == []
    text = doctor.describe(found)
    assert text.endswith("mlflow.db (not made yet)\nno problems")
    assert "CPUExecutionProvider (loaded and run), 0 CUDA devices" in text


def test_a_store_that_is_there_is_opened(tmp_path):
    connect().experiment("hubbard")
    assert _look()["store"] == {"location": f"sqlite:///{tmp_path}/mlflow.db", "experiments": ["hubbard"]}


@pytest.mark.parametrize("name", ["mlflow.db", "nowhere/mlflow.db"])
def test_a_store_that_cannot_be_used_is_a_problem(name, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    (tmp_path / "nowhere").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{name}")
    found = _look()
    assert [text.partition(":")[0] for text in found["problems"]] == ["store"]
    assert "store      not usable\nproblem    store: " in doctor.describe(found)


def test_a_broken_provider_is_a_problem_not_a_traceback(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("libstdc++.so.6:\n version not found")

    monkeypatch.setattr(doctor.onnxruntime, "InferenceSession", broken)
    found = _look()
    assert found["problems"] == ["provider: onnxruntime cannot run a graph: libstdc++.so.6: version not found"]
    text = doctor.describe(found)
    assert "provider   not usable, 0 CUDA devices" in text
    assert "no problems" not in text


class _Wrong:
    def __init__(self, *args, **options):
        pass

    def get_providers(self):
        return ["CPUExecutionProvider"]

    def run(self, names, inputs):
        return [np.array([1, 2], np.float32)]


def test_a_wrong_result_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.onnxruntime, "InferenceSession", _Wrong)
    assert _look()["problems"] == ["provider: CPUExecutionProvider computes a wrong result; install onnxruntime again"]


def test_a_gpu_that_is_not_used_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.provider, "cuda_devices", lambda: 1)
    monkeypatch.setattr(doctor.provider, "load_cuda_libraries", lambda: "no libcudnn")
    monkeypatch.setattr(doctor.provider, "options", lambda kind: ["CPUExecutionProvider"])
    assert _look()["problems"] == ["GPU: there, but not used by onnxruntime: no libcudnn"]
