"""Answers that are long: how much of them is written as JSON, and what waits for a client that does not read."""

import json
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from deploy.model.session import Session
from deploy.serving import compute, connection
from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER
from deploy.serving.server import running
from support import http_asking as asking

ask, counted = asking.ask, asking.counted


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


@pytest.fixture
def narrow(monkeypatch):
    """The system holds little of what is sent, so that the server has to."""
    made = connection._Connection.connection_made

    def with_small_buffer(self, transport):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        made(self, transport)

    monkeypatch.setattr(connection._Connection, "connection_made", with_small_buffer)


class Lazy:
    """A client that asks, and reads only when it is told to."""

    def __init__(self, url, path, body, headers):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.socket.settimeout(30)
        self.socket.connect((urlsplit(url).hostname, urlsplit(url).port))
        lines = {"Host": "localhost", "Content-Length": len(body), "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def read(self):
        """Return status and body."""
        with self.socket:
            got = b""
            while part := self.socket.recv(2**20):
                got += part
        head, _, body = got.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


def soon(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer"])
@pytest.mark.parametrize(
    ("room", "message"), [(5.0, "bodies of all requests"), (5.75, "answers that clients have not")]
)
def test_answers_that_nobody_reads_are_bounded_together(map_file, toy, narrow, path, room, message):
    """Three answers, each half as long again as its question, fill most of the room."""
    body, headers = question(toy.images(10_000), ["gradient", "prediction"], True)
    limits = Limits(rows=10_000, body_bytes=2 * len(body), total_bytes=int(room * len(body)))
    with running({"m": Session(map_file, provider="cpu", threads=1)}, limits=limits) as url:
        lazy = []
        for _ in range(3):
            lazy.append(Lazy(url, path, body, headers))
            soon(lambda: counted(url, "stm_body_bytes") > 1.4 * len(body) * len(lazy))
        status, answer, more = ask(url, "POST", path, body, headers)
        assert (status, more["retry-after"]) == (503, "1"), answer[:100]
        assert message in json.loads(answer)["error"]
        assert counted(url, "stm_requests_total", route="infer", status="503") == 1
        answers = [one.read() for one in lazy]
        assert [status for status, _ in answers] == [200] * 3
        assert len({answer for _, answer in answers}) == 1
        assert len(answers[0][1]) > 1.4 * len(body)
        soon(lambda: counted(url, "stm_body_bytes") == 0)
        assert ask(url, "POST", path, body, headers)[0] == 200


def test_who_goes_without_reading_takes_no_room_any_more(session, toy, narrow):
    body, headers = question(toy.images(10_000), ["gradient"], True)
    with running({"m": session}, limits=Limits(rows=10_000)) as url:
        lazy = Lazy(url, "/v2/models/m/infer", body, headers)
        soon(lambda: counted(url, "stm_body_bytes") > 0.9 * len(body))
        lazy.socket.close()
        soon(lambda: counted(url, "stm_body_bytes") == 0)


def test_an_answer_that_is_longer_than_all_the_room_is_given_when_it_is_alone(session, toy):
    images = toy.images(5000)
    body, headers = question(images, ["gradient", "prediction"], True)
    limits = Limits(rows=10_000, body_bytes=len(body), total_bytes=len(body))
    with running({"m": session}, limits=limits) as url:
        status, answer, _ = ask(url, "POST", "/v2/models/m/infer", body, headers)
    assert status == 200
    assert len(answer) > len(body)


def test_a_long_answer_counts_however_short_its_run_is(session, toy, narrow, monkeypatch):
    for name in ("_SHORT_SECONDS", "_SHORT_ALONE"):
        monkeypatch.setattr(compute, name, 60.0)
    body, headers = question(toy.images(4000), ["gradient"], True)
    with running({"m": session}, limits=Limits(rows=4000)) as url:
        for _ in range(12):  # its head is known then, and its run as short
            assert ask(url, "POST", "/v2/models/m/infer", body, headers)[0] == 200
        lazy = [Lazy(url, "/v2/models/m/infer", body, headers) for _ in range(2)]
        soon(lambda: counted(url, "stm_body_bytes") > 1.9 * len(body))
        assert [one.read()[0] for one in lazy] == [200, 200]
        soon(lambda: counted(url, "stm_body_bytes") == 0)
