import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest

from deploy.model.session import Session
from deploy.serving import inference
from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER, decode_response, encode_request
from deploy.serving.server import running
from support import http_asking as asking

ask = asking.ask

TOKEN = "a-long-random-word"


def _start(model, *options):
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.serving.cli", str(model), "--port", "0", "--threads", "1", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("ready:"):
            return process, re.search(r"ready: (\S+)  model (\S+)", line).groups()
    raise AssertionError(f"not ready: {''.join(lines)}")


def _stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def server(model_file):
    """A real server process; yields its address."""
    process, (url, name) = _start(model_file, "--provider", "cpu")
    assert name == "stm-toy"
    yield url
    assert _stop(process) == (0, "", "")


def raw(url, data):
    """Send bytes as they are; return the status and the whole answer."""
    answer = asking.raw(url, data)
    return int(answer.split(b" ", 2)[1]), answer


INFER = "/v2/models/stm-toy/infer"


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/stm-toy/ready", "/ping"])
def test_health(server, path):
    status, _, headers = ask(server, "GET", path)
    assert status == 200
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_it_says_what_it_serves(server, toy):
    index = json.loads(ask(server, "GET", "/v2/models")[1])
    assert index["models"] == ["stm-toy"]
    assert f"POST {INFER}" in index["endpoints"]
    assert json.loads(ask(server, "GET", "/v2")[1])["extensions"] == ["binary_tensor_data"]
    model = json.loads(ask(server, "GET", "/v2/models/stm-toy")[1])
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 2, 4, 5]}]
    assert {"name": "gradient", "datatype": "FP32", "shape": [-1, 2, 4, 5]} in model["outputs"]
    assert {"name": "distance", "datatype": "FP32", "shape": [-1]} in model["outputs"]
    assert model["parameters"]["metadata"]["data"] == toy.describe()["data"]
    assert model["parameters"]["provider"] == "cpu"
    assert ask(server, "GET", "/v2/models/stm-toy/versions/1")[1] == json.dumps(model, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("kind", "binary_in"),  # that client sends FP16 as binary only
    [("FP32", True), ("FP32", False), ("FP64", True), ("FP64", False), ("FP16", True)],
)
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_a_third_party_client_gets_the_right_numbers(server, toy, binary_in, binary_out, kind):
    import tritonclient.http as triton

    images = toy.images(3).astype({"FP32": "f4", "FP64": "f8", "FP16": "f2"}[kind])
    with triton.InferenceServerClient(urlsplit(server).netloc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("stm-toy")
        assert client.get_server_metadata()["name"] == "stm-lab"
        assert client.get_model_metadata("stm-toy")["outputs"][0]["name"] == "prediction"
        tensor = triton.InferInput("image", list(images.shape), kind)
        tensor.set_data_from_numpy(images, binary_data=binary_in)
        names = ("gradient", "prediction") if binary_out is not None else ("prediction", "distance")
        asked = None
        if binary_out is not None:
            asked = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
        result = client.infer("stm-toy", [tensor], outputs=asked, request_id="7", model_version="1")
    assert result.get_response()["id"] == "7"
    assert [out["name"] for out in result.get_response()["outputs"]] == list(names)
    expected = toy.expected(images.astype(np.float32))
    for name in names:
        np.testing.assert_allclose(result.as_numpy(name), expected[name], rtol=1e-4, atol=1e-4)


def test_a_third_party_client_gets_our_message(server):
    import tritonclient.http as triton

    with triton.InferenceServerClient(urlsplit(server).netloc) as client:
        tensor = triton.InferInput("image", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
        with pytest.raises(triton.InferenceServerException, match=r"\(1, 3\), expected \(batch, 2, 4, 5\)"):
            client.infer("stm-toy", [tensor])


def test_mlflows_protocol(server, toy):
    images = toy.images(4)
    body = json.dumps({"inputs": images.tolist()})
    status, answer, _ = ask(server, "POST", "/invocations", body, {"Content-Type": "application/json"})
    assert status == 200
    got = np.array(json.loads(answer)["predictions"])
    np.testing.assert_allclose(got, toy.expected(images)["prediction"], rtol=1e-4, atol=1e-4)


def test_a_long_answer_is_written_beside_the_event_loop(session, toy, monkeypatch):
    names = []
    plain = inference.encode_predictions

    def writing(values):
        names.append(threading.current_thread().name)
        return plain(values)

    monkeypatch.setattr(inference, "encode_predictions", writing)
    images = toy.images(2048)
    with running({"m": session}, limits=Limits(rows=2048)) as url:
        for rows in (2, 2048):
            body = json.dumps({"inputs": images[:rows].tolist()})
            status, answer, _ = ask(url, "POST", "/invocations", body, {"Content-Type": "application/json"})
            assert status == 200
            got = json.loads(answer)["predictions"]
            np.testing.assert_allclose(got, toy.expected(images[:rows])["prediction"], rtol=1e-3, atol=1e-3)
    assert names[0] == "stm-serve"
    assert names[1].startswith("stm-json")


def test_explain_gives_map_prediction_and_distance(server, toy):
    images = toy.images(2)
    body, length = encode_request(images, ["gradient"])
    path = "/v2/models/stm-toy/explain"
    status, answer, headers = ask(server, "POST", path, body, {HEADER: str(length)})
    assert status == 200
    got, head = decode_response(answer, headers[HEADER])
    assert set(got) == {"prediction", "gradient", "distance"}
    for name, values in toy.expected(images).items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)
    assert head["parameters"] == {"explained": "gap"}


def test_explain_carries_the_tasks_answers(session, toy):
    def decode(outputs, metadata):
        assert metadata["task"] == "toy"
        return [{"U": row[0], "unit": "eV", "bad": np.float32("nan")} for row in outputs["prediction"]]

    images = toy.images(2)
    body, length = encode_request(images, ["gradient"], binary=False)
    assert length is None
    with running({"a": session, "b": session}, decode=decode) as url:
        status, answer, _ = ask(url, "POST", "/v2/models/b/explain", body)
    assert status == 200
    answers = json.loads(answer)["parameters"]["answers"]
    np.testing.assert_allclose([a["U"] for a in answers], toy.expected(images)["prediction"][:, 0], rtol=1e-4)
    assert answers[0]["bad"] is None


def test_the_real_task_answers(tmp_path, toy):
    path = toy.write(tmp_path / "h.onnx", change={"task": "hubbard"})
    proto = onnx.load(path)
    proto.graph.node.extend(
        [onnx.helper.make_node("Neg", ["distance"], ["near"]), onnx.helper.make_node("Exp", ["near"], ["novelty"])]
    )
    proto.graph.output.append(onnx.helper.make_tensor_value_info("novelty", onnx.TensorProto.FLOAT, ["batch"]))
    onnx.save(proto, path)
    session = Session(path, threads=1, provider="cpu")
    images = np.concatenate([0.1 * toy.images(1), 10 * toy.images(1)])
    body, length = encode_request(images, ["gradient"])
    with running({"m": session}) as url:
        status, answer, headers = ask(url, "POST", "/v2/models/m/explain", body, {HEADER: str(length)})
    assert status == 200
    _, head = decode_response(answer, headers[HEADER])
    answers = head["parameters"]["answers"]
    expected = toy.expected(images)["prediction"][:, 0]
    np.testing.assert_allclose([row["U"]["value"] for row in answers], expected, rtol=1e-4)
    assert [row["inside"] for row in answers] == [True, False]


def test_a_model_without_explanations_says_so(tmp_path, toy):
    plain = Session(toy.write(tmp_path / "plain.onnx", change={"explanations": []}), threads=1, provider="cpu")
    with running({"m": plain}) as url:
        status, answer, _ = ask(url, "POST", "/v2/models/m/explain", b"{}")
    assert status == 400
    assert b"no explanation" in answer


GOOD, LENGTH = encode_request(np.ones((1, 2, 4, 5), np.float32), ["prediction"])
BINARY = {HEADER: str(LENGTH)}
NAN, _ = encode_request(np.full((1, 2, 4, 5), np.nan, np.float32), ["prediction"])


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "message"),
    [
        ("POST", INFER, b"{", {}, 400, "no valid JSON"),
        ("POST", INFER, b"", {}, 400, "no valid JSON"),
        ("POST", INFER, b"\xff\xfe", {}, 400, "no valid JSON"),
        ("POST", INFER, GOOD, {}, 400, "no valid JSON"),
        ("POST", INFER, GOOD[:-1], BINARY, 400, "159 bytes follow"),
        ("POST", INFER, GOOD + b"x", BINARY, 400, "1 bytes follow"),
        ("POST", INFER, GOOD, {HEADER: "99999"}, 400, HEADER),
        ("POST", INFER, NAN, BINARY, 400, "NaN"),
        ("POST", INFER, GOOD.replace(b"[1,2,4,5]", b"[1,2,5,4]"), BINARY, 400, "(batch, 2, 4, 5)"),
        ("POST", INFER, GOOD.replace(b"FP32", b"UINT"), BINARY, 400, "choose from FP32"),
        ("POST", INFER, GOOD.replace(b'"prediction"', b'"predictiom"'), BINARY, 400, "gradient, distance"),
        ("POST", INFER, GOOD, {**BINARY, "Content-Encoding": "gzip"}, 415, "compressed"),
        ("POST", INFER, b"", {"Content-Length": str(10**15)}, 413, "larger than"),
        ("POST", "/v2/models/other/infer", GOOD, BINARY, 404, "choose from stm-toy"),
        ("POST", "/v2/models/%2e%2e%2fetc/infer", GOOD, BINARY, 404, ""),
        ("POST", "/v2/models/stm-toy/versions/2/infer", GOOD, BINARY, 404, "no version '2'"),
        ("GET", "/v2/models/other", None, {}, 404, "unknown model"),
        ("GET", "/nowhere", None, {}, 404, "Not Found"),
        ("GET", INFER, None, {}, 405, "Method Not Allowed"),
        ("POST", "/invocations", b'{"rows": []}', {}, 400, "expected one of inputs, instances"),
        ("POST", "/invocations", b'{"inputs": [[NaN]]}', {}, 400, "NaN is no JSON"),
        ("GET", "/ping", None, {"Host": "evil.example"}, 403, "Host"),
        ("GET", "/v2", None, {"Host": "127.0.0.1.evil.example:8080"}, 403, "Host"),
        ("GET", "/v2", None, {"Host": "localhost:1"}, 200, ""),
        ("GET", "/v2", None, {"Host": "[::1]:1"}, 200, ""),
    ],
)
def test_bad_requests_get_a_json_error(server, method, path, body, headers, status, message):
    got, answer, back = ask(server, method, path, body, headers)
    assert got == status, answer
    assert back["x-content-type-options"] == "nosniff"
    value = json.loads(answer)
    if status != 200:
        assert set(value) == {"error"}
        assert message in value["error"]


def test_a_body_without_a_length_is_stopped_when_it_grows_too_large(session):
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    head = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running({"m": session}, max_body_bytes=2000) as url:
        status, answer = raw(url, head + 3 * chunk)
        assert status == 413
        assert b"larger than 2000 bytes" in answer
        assert ask(url, "GET", "/ping")[0] == 200


def test_too_many_rows_are_refused(session, toy):
    body, length = encode_request(toy.images(3), ["prediction"])
    with running({"m": session}, max_rows=2) as url:
        status, answer, _ = ask(url, "POST", "/v2/models/m/infer", body, {HEADER: str(length)})
    assert status == 400
    assert b"3 rows, at most 2" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n",
    ],
)
def test_broken_http_is_a_client_error(server, data):
    status, _ = raw(server, data)
    assert 400 <= status < 500
    assert ask(server, "GET", "/ping")[0] == 200


def test_a_client_that_leaves_half_way_harms_nobody(server):
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode()
    for _ in range(5):
        with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port)) as connection:
            connection.sendall(head + b"{")
    time.sleep(0.1)
    assert ask(server, "GET", "/ping")[0] == 200


def test_concurrent_requests_get_their_own_rows(server, toy):
    def one(seed):
        images = toy.images(1 + seed % 5, seed)
        body, length = encode_request(images, ["prediction", "gradient"])
        status, answer, headers = ask(server, "POST", INFER, body, {HEADER: str(length)})
        assert status == 200
        got, _ = decode_response(answer, headers[HEADER])
        expected = toy.expected(images)
        return all(np.allclose(got[name], expected[name], rtol=1e-3, atol=1e-3) for name in got)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(80)))


def test_health_answers_while_the_model_computes(model_file):
    entered, leave = threading.Event(), threading.Event()

    class Slow(Session):
        def run(self, image, outputs=("prediction",)):
            entered.set()
            leave.wait(60)
            return super().run(image, outputs)

    with running({"m": Slow(model_file, provider="cpu", threads=1)}) as url, ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, url, "POST", "/v2/models/m/infer", GOOD, BINARY)
        assert entered.wait(20)
        assert ask(url, "GET", "/v2/health/live")[0] == 200
        assert not future.done()
        leave.set()
        assert future.result()[0] == 200


def test_a_failure_of_ours_is_a_500_without_its_inside(model_file):
    class Broken(Session):
        def run(self, image, outputs=("prediction",)):
            raise RuntimeError("secret path /root")

    with running({"m": Broken(model_file, provider="cpu", threads=1)}) as url:
        status, answer, _ = ask(url, "POST", "/v2/models/m/infer", GOOD, BINARY)
    assert status == 500
    assert b"secret" not in answer


def test_a_token_is_asked_of_all_but_health(model_file, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    process, (url, name) = _start(model_file, "--token-file", str(file), "--name", "champion")
    try:
        assert name == "champion"
        for path in ("/ping", "/v2/health/live", "/v2/health/ready"):
            assert ask(url, "GET", path)[0] == 200
        for header in (None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}é"):
            headers = {} if header is None else {"Authorization": header}
            status, answer, back = ask(url, "GET", "/v2", headers=headers)
            assert status == 401
            assert back["www-authenticate"] == "Bearer"
            assert TOKEN.encode() not in answer
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(url, "GET", "/v2/models/champion", headers=good)[0] == 200
        status, answer, _ = ask(url, "POST", "/v2/models/champion/infer", GOOD, {**BINARY, **good})
        assert status == 200
    finally:
        code, _, err = _stop(process, signal.SIGINT)
    assert code == 0
    assert TOKEN not in err


def test_requests_under_way_are_answered_before_it_stops(model_file, toy):
    process, (url, _) = _start(model_file)
    images = toy.images(256)
    body, length = encode_request(images, ["prediction", "gradient"])
    with ThreadPoolExecutor(1) as pool:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        connection.putrequest("POST", INFER)
        connection.putheader(HEADER, str(length))
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:-4])
        time.sleep(2)
        stopped = pool.submit(_stop, process)
        time.sleep(0.3)
        connection.send(body[-4:])
        response = connection.getresponse()
        assert response.status == 200
        got, _ = decode_response(response.read(), response.headers[HEADER])
        np.testing.assert_allclose(got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3)
        connection.close()
        assert stopped.result()[0] == 0
