"""Two real stores: a SQLite file, and a server in a process group of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support import mlflow_server
from tracking.store import Store, connect

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return connect(f"sqlite:///{tmp_path_factory.mktemp('local')}/mlflow.db")


@pytest.fixture(scope="session")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    server = mlflow_server.Server(tmp_path_factory.mktemp("server"))
    try:
        yield connect(server.start().uri)
    finally:
        server.kill()


@pytest.fixture(scope="session", params=["local", "remote"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


@pytest.fixture
def parent(local: Store) -> str:
    """The run of a search."""
    return str(local.client.create_run(local.experiment("study")).info.run_id)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """An ONNX file in a serialisation that mlflow would not write itself."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["prediction"], keepdims=0, axes=[2, 3])],
        "mean",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path = tmp_path / "exported.onnx"
    # Fields in another order than protobuf's own writer: the bytes differ, the model does not.
    opset = onnx.ModelProto(opset_import=model.opset_import).SerializeToString()
    model.ClearField("opset_import")
    path.write_bytes(opset + model.SerializeToString())
    assert onnx.load(path).SerializeToString() != path.read_bytes()
    return path


@pytest.fixture
def picture() -> np.ndarray:
    return np.linspace(0, 1, 12).reshape(3, 4)


def script(code: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    """Start ``code`` in a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def start_script() -> Iterator[object]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
        started.append(script(code, *arguments, folder=folder))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
