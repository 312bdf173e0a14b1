"""Files on their way to the server: how large, slow and many they may be, and that they end without harm to others."""

import http.client
import json
import tempfile
import threading
import time
from urllib.parse import urlsplit

import pytest

from deploy.serving.limits import Limits
from deploy.serving.page import routes, upload
from deploy.serving.server import running
from support import file_asking
from support.http_asking import ask as request

CONTENT, ask, npy = file_asking.CONTENT, file_asking.ask, file_asking.npy
ASK = "/v2/models/numbers/ask?suffix=.npy"


def begin(url, content=b"slow"):
    """Send the first bytes of a file."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.putrequest("POST", ASK)
    for name, value in {**CONTENT, "Content-Length": str(len(content) + 1000)}.items():
        connection.putheader(name, value)
    connection.endheaders(content)
    return connection


@pytest.fixture(scope="module")
def model(tmp_path_factory, toy):
    return file_asking.numbers(toy, tmp_path_factory.mktemp("model"))


def test_size_limits(model, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(upload, "MAX_UPLOAD_BYTES", 2000)
    with running({"numbers": model}) as url:
        path = "/v2/models/numbers/ask?suffix=.npy"
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", CONTENT["Content-Type"])
        connection.putheader("Content-Length", str(10**12))
        connection.endheaders()  # and not one byte of it
        assert connection.getresponse().status == 413
        connection.close()
        status, body, _ = request(url, "POST", path, iter([b"x" * 1500] * 2), CONTENT)  # in chunks, of no said length
        assert status == 413
        assert "larger than" in json.loads(body)["error"]
        assert ask(url, npy(toy.images(1)[0]))[0] == 200
    assert not list(tmp_path.iterdir())


def test_files_have_bounds_of_their_own(model, toy):
    """Smaller ones for requests of tensors do not hold for them."""
    limits = Limits(body_bytes=2**20, body_seconds=0.5)
    content = npy(toy.images(1)[0])
    with running({"numbers": model}, limits=limits) as url:
        status, found = ask(url, content + b" " * (5 * 2**20 - len(content)))
        assert status == 200, found  # what follows an array is no part of it

        def slowly():
            yield content[:100]
            time.sleep(1.5)
            yield content[100:]

        status, body, _ = request(url, "POST", "/v2/models/numbers/ask?suffix=.npy", slowly(), CONTENT)
        assert status == 200, body


def test_slow_uploads_end_and_keep_nobody_from_asking(model, toy, monkeypatch):
    monkeypatch.setattr(routes, "_AT_ONCE", 1)
    with running({"numbers": model}) as url:
        slow = [begin(url) for _ in range(3)]
        assert ask(url, npy(toy.images(1)[0]))[0] == 200
        monkeypatch.setattr(upload, "SECONDS", 0.5)
        late = begin(url)
        answer = late.getresponse()
        assert answer.status == 408
        assert "did not arrive within 0.5 s" in json.loads(answer.read())["error"]
        for one in (late, *slow):
            one.close()


def test_files_that_arrive_have_a_bound_together(model, monkeypatch):
    monkeypatch.setattr(routes, "_AT_ONCE", 1)
    monkeypatch.setattr(upload, "MAX_UPLOAD_BYTES", 3000)
    with running({"numbers": model}) as url:
        slow = begin(url, b"x" * 1900)
        while (found := request(url, "POST", ASK, b"x" * 1500, CONTENT))[0] == 400:
            pass  # until the slow one's bytes are here
        status, body, headers = found
        assert (status, headers["retry-after"]) == (503, "5")
        assert "all requests together are too large" in json.loads(body)["error"]
        assert request(url, "POST", ASK, b"x" * 1000, CONTENT)[0] == 400  # there is room for this one
        slow.close()
        while request(url, "POST", ASK, b"x" * 1500, CONTENT)[0] == 503:
            pass


def test_an_answer_has_its_time_and_keeps_its_slot_to_its_end(model, toy, monkeypatch):
    monkeypatch.setattr(routes, "_AT_ONCE", 1)
    leave, plain = threading.Event(), routes.FileReader.read

    def slowly(*asked):
        assert leave.wait(60)
        return plain(*asked)

    monkeypatch.setattr(routes.FileReader, "read", slowly)
    content = npy(toy.images(1)[0])
    with running({"numbers": model}, limits=Limits(request_seconds=0.5)) as url:
        status, body, headers = request(url, "POST", ASK, content, CONTENT)
        assert (status, headers["retry-after"]) == (503, "5")
        assert "took more than 0.5 s" in json.loads(body)["error"]
        status, body, headers = request(url, "POST", ASK, content, CONTENT)
        assert (status, headers["retry-after"]) == (503, "5")
        assert "1 files are being answered already" in json.loads(body)["error"]
        leave.set()
        while b"are being answered" in (body := request(url, "POST", ASK, content, CONTENT)[1]):
            pass
