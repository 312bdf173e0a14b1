"""The champion behind `stm serve`, asked over HTTP by a third-party client, MLflow's way and our own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import xarray

from deploy.client import Client
from deploy.model.session import Session
from deploy.serving.protocol import decode_response
from support.stm_server import served

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def url(demo, clean):
    with served(["serve", demo.model], demo.folder, clean) as address:
        yield address


@pytest.fixture(scope="module")
def images(demo):
    return xarray.open_zarr(demo.data).image.values[:3]


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.status, json.loads(answer.read() or b"{}")


def post(address, value):
    request = urllib.request.Request(address, json.dumps(value).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_health(url):
    assert get(f"{url}/v2/health/ready")[0] == 200
    assert urllib.request.urlopen(f"{url}/ping", timeout=10).status == 200


@pytest.mark.parametrize("binary", [True, False])
def test_a_third_party_client(url, demo, images, binary):
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_ready()
    assert client.is_model_ready("stm-hubbard")
    value = triton.InferInput("image", list(images.shape), "FP32")
    value.set_data_from_numpy(images, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("prediction", "gradient")]
    answer = client.infer("stm-hubbard", [value], outputs=wanted)
    expected = Session(demo.onnx).run(images, ("prediction", "gradient"))
    for name, array in expected.items():
        np.testing.assert_allclose(answer.as_numpy(name), array, rtol=1e-4, atol=1e-4 * np.abs(array).max())
    client.close()


def test_mlflow_scoring(url, demo, images):
    found = post(f"{url}/invocations", {"inputs": images.tolist()})["predictions"]
    np.testing.assert_allclose(found, Session(demo.onnx).run(images)["prediction"], rtol=1e-4)


def test_explain_answers_in_words(url, images):
    body = {"inputs": [{"name": "image", "shape": list(images.shape), "datatype": "FP32",
                        "data": images.ravel().tolist()}]}  # fmt: skip
    found = post(f"{url}/v2/models/stm-hubbard/explain", body)
    assert {output["name"] for output in found["outputs"]} >= {
        "prediction",
        "lower",
        "upper",
        "distance",
        "novelty",
        "gradient",
    }
    assert "like the training data" in found["parameters"]["answers"][0]["verdict"]


def test_our_own_client(url, demo, images):
    client = Client(url)
    assert client.ready()
    found = client.infer(images, ("prediction", "distance"))
    np.testing.assert_allclose(found["prediction"], Session(demo.onnx).run(images)["prediction"], rtol=1e-4)
    client.close()


def test_the_examples_of_the_documents_run_in_their_order(url, demo, clean, images):
    blocks = re.findall(r"```(bash|python)\n(.*?)```", DOCS.read_text(), re.S)
    assert [kind for kind, _ in blocks] == ["bash", "python", "bash"]
    for kind, code in blocks:
        command = ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [sys.executable, "-c", code]
        command[-1] = command[-1].replace("http://127.0.0.1:8080", url)
        done = subprocess.run(command, cwd=demo.folder, env=clean, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (code, done.stderr)
    want = Session(demo.onnx, provider="cpu").run(images[:2])["prediction"]
    answer, _ = decode_response((demo.folder / "answer.json").read_bytes(), None)
    np.testing.assert_allclose(answer["prediction"], want, rtol=1e-4)
    explained = json.loads((demo.folder / "explained.json").read_text())
    assert "gradient" in {output["name"] for output in explained["outputs"]}
    body = (demo.folder / "answer.bin").read_bytes()
    head = json.JSONDecoder().raw_decode(body[:4096].decode("latin-1"))[0]
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    got, _ = decode_response(body, str(len(body) - sum(sizes)))
    np.testing.assert_allclose(got["prediction"], want, rtol=1e-4)
