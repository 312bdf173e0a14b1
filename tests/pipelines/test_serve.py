"""`stm serve` behind a real registry: the alias that it was given is followed, and a bad version is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deploy.client import Client
from pipelines.addresses import served_version
from pipelines.server_process import serving
from stm_models.errors import InputError
from stm_models.files import sha256
from support import serving_versions as versions


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A store in a folder, and what puts version N of the toy into it."""
    from tracking import models, runs
    from tracking.store import connect

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = connect()

    def publish(number, alias="champion", kind=None):
        path = tmp_path / f"{number}.onnx"
        if kind is None:
            versions.write_good(tmp_path, number)
        else:
            versions.write_bad(tmp_path, number, kind)
        with runs.start(store, "models", "train") as run:
            models.log_onnx(run, path, sha256(path), versions.toy(number).describe())
        assert models.register(store, "stm-toy", run.id) == number
        models.set_alias(store, "stm-toy", alias, number)

    return publish


def test_a_served_version_has_the_registrys_number(registry):
    registry(1)
    registry(2)
    found = served_version("models:/stm-toy@champion")
    assert found.label == "2"
    assert found.path.read_bytes() == Path("2.onnx").read_bytes()
    assert served_version("models:/stm-toy/1").label == "1"
    assert served_version("1.onnx").label == "1"
    with pytest.raises(InputError, match="stm-toy@champion"):
        served_version("models:/stm-toy@challenger")


def test_the_alias_is_followed(registry, tmp_path):
    registry(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "serve", "models:/stm-toy@champion", "mine=1.onnx", "--port", "0",
         "--poll-seconds", "0.2"],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    try:
        ready = next((line for line in process.stderr if line.startswith("ready: ")), "")
        assert ready.endswith("model stm-toy, mine\n")
        client = Client(ready.split()[1])
        assert client.model == "stm-toy"
        images = versions.toy(1).images(2)

        def serves(number):
            got = client.infer(images)["prediction"]
            return np.allclose(got, versions.toy(number).expected(images)["prediction"], rtol=1e-3, atol=1e-3)

        def soon(condition):
            end = time.monotonic() + 120
            while not condition():
                assert time.monotonic() < end, client.metadata()
                time.sleep(0.1)

        assert serves(1)
        registry(2)
        soon(lambda: client.metadata()["versions"] == ["2"])
        assert serves(2)
        registry(3, kind="other input")
        soon(lambda: "refused" in client.metadata()["parameters"])
        assert client.metadata()["parameters"]["refused"]["version"] == "3"
        assert client.metadata()["versions"] == ["2"]
        assert serves(2)
        client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "version 2 takes over from 1" in said
    assert "version 3 refused, 2 goes on" in said
    assert "Traceback" not in said


def test_a_server_that_refuses_is_not_waited_for(tmp_path):
    ended = pytest.raises(InputError, match=r"the server ended before it was ready: error: .*none\.onnx")
    with ended, serving(str(tmp_path / "none.onnx")):
        pass
