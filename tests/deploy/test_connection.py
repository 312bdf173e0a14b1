"""One connection that asks many times: heads seen before, requests in pieces and one after another, and its clock."""

import json
import socket
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from deploy.model.session import Session
from deploy.serving import connection, listening
from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER, decode_response, encode_request
from deploy.serving.server import running
from support.http_asking import counted

PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
FIRST = 12  # requests, after which a run is known to be short


@pytest.fixture
def repeats(monkeypatch):
    """Heads that were not parsed again: what was left to parse, 0 where the request was answered or waited for."""
    left = []
    plain = connection._Connection._repeat

    def counting(self, known, data):
        found = plain(self, known, data)
        left.append(len(found))
        return found

    monkeypatch.setattr(connection._Connection, "_repeat", counting)
    return left


class Client:
    """A socket that stays open."""

    def __init__(self, url):
        self.socket = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""

    def send(self, *parts):
        for part in parts:
            self.socket.sendall(part)
            time.sleep(0.005 if len(parts) > 1 else 0)

    def answer(self):
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self.got:
            self._more()
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        status, *lines = head.decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        while len(self.got) < int(headers["content-length"]):
            self._more()
        body, self.got = self.got[: int(headers["content-length"])], self.got[int(headers["content-length"]) :]
        return int(status.split()[1]), headers, body

    def _more(self):
        part = self.socket.recv(65536)
        assert part, "the server closed the connection"
        self.got += part


def request(images, more=b""):
    body, length = encode_request(images, ["prediction"])
    lines = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n" + more
    return lines + f"{HEADER}: {length}\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body


def check(client, toy, images):
    status, headers, body = client.answer()
    assert status == 200, body
    got, _ = decode_response(body, headers[HEADER.lower()])
    np.testing.assert_allclose(got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3)


def flood(client, asked):
    """Ask for ever, and read nothing."""
    while True:
        client.socket.sendall(asked)


def warmed(url, toy):
    """Return a connection whose usual head is known."""
    client = Client(url)
    for turn in range(FIRST):
        images = toy.images(1, turn)
        client.send(b"".join(request(images)))
        check(client, toy, images)
    return client


@pytest.mark.parametrize("cut", [None, 0, 1, 30])
def test_a_head_seen_before_is_answered_without_its_parser(session, toy, repeats, cut):
    with running({"m": session}) as url:
        client = warmed(url, toy)
        repeats.clear()
        for turn in range(5):
            images = toy.images(1, 100 + turn)
            head, body = request(images)
            client.send(*([head + body] if cut is None else [head + body[:cut], body[cut:]]))
            check(client, toy, images)
        assert repeats
        assert not any(repeats)
        assert counted(url, "stm_requests_total", route="infer", status="200") == FIRST + 5


def test_a_head_that_came_by_itself_is_known_too(session, toy, repeats):
    with running({"m": session}) as url:
        client = Client(url)
        for turn in range(FIRST + 3):
            images = toy.images(1, turn)
            client.send(*request(images))
            check(client, toy, images)
        assert repeats
        assert not any(repeats)


def test_requests_one_behind_the_other_are_all_answered(session, toy):
    with running({"m": session}) as url:
        client = warmed(url, toy)
        several = [toy.images(1, seed) for seed in range(3)]
        whole = b"".join(b"".join(request(images)) for images in several)
        for cut in (len(whole), 20, len(whole) // 2, len(whole) - 3):
            client.send(whole[:cut], whole[cut:])
            for images in several:
                check(client, toy, images)
        client.send(whole + PING + b"".join(request(several[0])))
        for images in several:
            check(client, toy, images)
        assert client.answer()[0] == 200
        check(client, toy, several[0])


def test_what_may_not_be_answered_is_refused_behind_a_known_head(session, toy):
    with running({"m": session}) as url:
        client = warmed(url, toy)
        wrong = toy.images(1)
        wrong[0, 1, 2, 3] = np.nan
        client.send(b"".join(request(wrong)))
        status, _, body = client.answer()
        assert status == 400
        assert b"row 0 has 1 values that are NaN" in body
        images = toy.images(2)
        client.send(b"".join(request(images, b"X-Other: 1\r\n")))
        check(client, toy, images)


def test_what_is_refused_behind_a_known_head_is_checked_and_counted_once(session, toy, repeats):
    wrong = toy.images(1)
    wrong[0, 1, 2, 3] = np.nan
    with running({"m": session}, limits=Limits(rate=0.001, burst=FIRST + 5)) as url:
        client = warmed(url, toy)
        repeats.clear()
        for _ in range(2):
            client.send(b"".join(request(wrong)))
            status, headers, body = client.answer()
            assert (status, headers["content-type"]) == (400, "application/json")
            assert headers["x-frame-options"] == "deny"
            assert b"row 0 has 1 values that are NaN" in body
        client.send(b"".join(request(toy.images(1))))
        check(client, toy, toy.images(1))
        assert repeats == [0, 0, 0]
        assert counted(url, "stm_requests_total", route="infer", status="400") == 2
        client.send(b"".join(request(wrong)))
        assert client.answer()[0] == 400  # the last one that the rate allows
        client.send(b"".join(request(wrong)))
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (429, "close")
        assert int(headers["retry-after"]) > 0
        assert b"0.001 requests per second" in body
        assert client.socket.recv(100) == b""


def test_a_failure_behind_a_known_head_is_a_500(model_file, toy):
    class Broken(Session):
        def run(self, image, outputs=("prediction",)):
            if image[0, 0, 0, 0] == 13:
                raise RuntimeError("an inside")
            return super().run(image, outputs)

    with running({"m": Broken(model_file, provider="cpu", threads=1)}) as url:
        client = warmed(url, toy)
        images = toy.images(1)
        images[0, 0, 0, 0] = 13
        client.send(b"".join(request(images)))
        status, _, body = client.answer()
        assert (status, b"inside" in body) == (500, False)
        client.send(b"".join(request(toy.images(1))))
        check(client, toy, toy.images(1))


def test_a_token_is_asked_for_with_every_head(session, toy):
    with running({"m": session}, token="secret") as url:
        client = Client(url)
        images = toy.images(1)
        right = b"".join(request(images, b"Authorization: Bearer secret\r\n"))
        for _ in range(FIRST + 3):
            client.send(right)
            check(client, toy, images)
        client.send(b"".join(request(images, b"Authorization: Bearer sicret\r\n")))
        assert client.answer()[0] == 401


def test_the_body_behind_a_known_head_has_its_time(session, toy):
    with running({"m": session}, limits=Limits(body_seconds=0.5)) as url:
        client = warmed(url, toy)
        head, body = request(toy.images(1))
        client.send(head + body[:10])
        status, _, said = client.answer()
        assert status == 408
        assert b"the body did not arrive within 0.5 s" in said


def test_a_long_body_before_the_next_head_is_no_long_head(session, toy):
    with running({"m": session}) as url:
        client = Client(url)
        images = toy.images(256)
        head, body = request(images)
        assert len(body) > connection.HEAD_BYTES
        client.send(head + body + PING[:20], PING[20:])
        check(client, toy, images)
        assert client.answer()[0] == 200


@pytest.mark.parametrize("rest", [b"\r\n", b"\r\n\r\n"])
def test_who_sends_no_request_is_let_go_too(session, monkeypatch, rest):
    monkeypatch.setattr(listening, "_IDLE_SECONDS", 3)
    with running({"m": session}) as url:
        client = Client(url)
        client.send(PING)
        assert client.answer()[0] == 200
        client.send(rest)
        assert client.socket.recv(100) == b""


def test_a_body_that_comes_after_its_answer_does_not_hold_the_connection(session, monkeypatch):
    monkeypatch.setattr(listening, "_IDLE_SECONDS", 3)
    with running({"m": session}) as url:
        client = Client(url)
        client.send(b"POST /ping HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        assert client.answer()[0] == 405
        client.send(b"0123456789")
        assert client.socket.recv(100) == b""


def test_requests_cut_anywhere_get_the_answers_of_whole_ones(session, toy):
    rng = np.random.default_rng(0)
    known = [request(toy.images(1, seed)) for seed in range(2)]
    wrong = toy.images(1)
    wrong[0, 0, 0, 0] = np.inf
    kinds = [
        *(b"".join(one) for one in known), b"".join(request(wrong)), b"".join(request(toy.images(3))), PING,
        b"".join(request(toy.images(1), b"X: 1\r\n")), b"\r\n" + PING,
    ]  # fmt: skip
    with running({"m": session}) as url:
        plain = []
        for kind in kinds:
            client = Client(url)
            client.send(kind)
            plain.append(client.answer())
        for _ in range(12):
            client = warmed(url, toy)
            chosen = rng.choice(len(kinds), size=12, p=[0.35, 0.35, *[0.3 / 5] * 5])
            whole = b"".join(kinds[kind] for kind in chosen)
            cuts = sorted(rng.integers(0, len(whole), rng.integers(0, 9)))
            client.send(*(whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)))
            assert [client.answer() for _ in chosen] == [plain[kind] for kind in chosen]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@pytest.mark.parametrize("whole", [True, False])
def test_who_offers_another_protocol_is_answered_in_this_one(session, toy, repeats, whole):
    """As Java's HttpClient does with every request, and curl --http2."""
    with running({"m": session}) as url:
        client = Client(url)
        for turn in range(FIRST + 3):
            images = toy.images(1, turn)
            head, body = request(images, UPGRADE)
            client.send(*([head + body] if whole else [head, body]))
            check(client, toy, images)
        assert repeats  # its head is known like any other
        assert not any(repeats)
        client.send(b"".join(request(images, UPGRADE)) + PING + b"".join(request(images)))
        check(client, toy, images)
        assert client.answer()[0] == 200
        check(client, toy, images)
        assert counted(url, "stm_requests_total", route="infer", status="200") == FIRST + 5


@pytest.mark.parametrize(
    "framed", [b"Content-Length: %d\r\n\r\n%s", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("cut", [None, 0, 20])
def test_a_body_behind_an_upgrade_is_not_run_as_a_request(session, framed, cut):
    body = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    asked = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + framed % (len(body), body)
    end = asked.index(b"\r\n\r\n") + 4
    with running({"m": session}) as url:
        client = Client(url)
        client.send(*([asked] if cut is None else [asked[: end + cut], asked[end + cut :]]))
        status, _, said = client.answer()
        assert status == 400
        assert b"no valid JSON: expected value" in said
        client.send(PING)
        assert client.answer()[2] == b"\n"


def test_a_tunnel_is_refused_and_what_follows_is_no_request(session):
    with running({"m": session}) as url:
        client = Client(url)
        client.send(b"CONNECT /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(PING) + PING)
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (400, "close")
        assert client.socket.recv(100) == b""


def test_the_clock_of_a_connection_in_use_starts_again(session, toy, monkeypatch):
    monkeypatch.setattr(listening, "_IDLE_SECONDS", 3)
    with running({"m": session}) as url:
        client = warmed(url, toy)
        began = time.monotonic()
        while time.monotonic() - began < 5:
            images, asked = toy.images(1), time.monotonic()
            client.send(b"".join(request(images)))
            check(client, toy, images)
            time.sleep(0.1)
        assert client.socket.recv(100) == b""
        assert time.monotonic() - asked > 2.8


def test_who_reads_an_answer_slowly_gets_all_of_it(session, toy, monkeypatch):
    monkeypatch.setattr(connection, "_READ_SECONDS", 1)
    made = connection._Connection.connection_made

    def with_small_buffer(self, transport):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        made(self, transport)

    monkeypatch.setattr(connection._Connection, "connection_made", with_small_buffer)
    body, _ = encode_request(toy.images(256), ["gradient", "prediction"], binary=False)
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with running({"m": session}) as url, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        slow.settimeout(20)
        slow.connect((urlsplit(url).hostname, urlsplit(url).port))
        slow.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got, began = b"", time.monotonic()
        while part := slow.recv(4096):
            got += part
            time.sleep(0.08)
        assert time.monotonic() - began > 3
    head, _, answer = got.partition(b"\r\n\r\n")
    assert f"content-length: {len(answer)}\r\n".encode() in head + b"\r\n"
    assert json.loads(answer)["outputs"]


def test_who_reads_no_answer_is_let_go(session, toy, monkeypatch):
    monkeypatch.setattr(connection, "_READ_SECONDS", 1)
    with running({"m": session}) as url:
        client = warmed(url, toy)
        client.socket.settimeout(20)  # a server that waits for ever is noticed by this
        asked = b"".join(request(toy.images(1)))
        with pytest.raises(ConnectionError):
            flood(client, asked)
