"""How much may be asked, how fast, and in what time: for all together and for each."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest

from deploy.model.session import Session
from deploy.serving import inference
from deploy.serving.compute import Schedule
from deploy.serving.connection import HEAD_BYTES
from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER, encode_request
from deploy.serving.rate import RateLimit
from deploy.serving.server import running
from stm_models.errors import InputError
from support import http_asking as asking

ask, raw, error_of = asking.ask, asking.raw, asking.error_of
BODY, LENGTH, POST = asking.BODY, asking.LENGTH, asking.POST


def test_a_bucket_holds_so_many_and_fills_so_fast():
    now = [100.0]
    rate = RateLimit(2.0, 3.0, clock=lambda: now[0])
    assert [rate.wait("a") for _ in range(3)] == [0.0] * 3
    assert rate.wait("a") == pytest.approx(0.5)
    assert rate.wait("b") == 0.0
    now[0] += 0.5
    assert rate.wait("a") == 0.0
    assert rate.wait("a") > 0.0
    now[0] += 1000
    assert [rate.wait("a") for _ in range(3)] == [0.0] * 3
    assert rate.wait("a") > 0.0


def test_a_client_that_asks_too_fast_is_told_when_to_come_again(session):
    with running({"m": session}, limits=Limits(rate=0.01, burst=12)) as url:
        statuses = []
        for _ in range(16):
            status, answer, headers = ask(url, "POST", "/v2/models/m/infer", BODY, {HEADER: str(LENGTH)})
            statuses.append(status)
        assert statuses[:12] == [200] * 12
        assert statuses[-1] == 429
        assert 1 <= int(headers["retry-after"]) <= 100
        assert b"0.01 requests per second" in answer
        assert ask(url, "GET", "/v2/health/ready")[0] == 200


def test_tokens_cannot_be_tried_faster_than_the_rate(session):
    with running({"m": session}, limits=Limits(rate=0.01, burst=3), token="secret-word") as url:
        tried = [ask(url, "GET", "/v2", headers={"Authorization": f"Bearer {turn}"})[0] for turn in range(4)]
        assert tried == [401, 401, 401, 429]
        assert ask(url, "GET", "/v2", headers={"Host": "elsewhere.example"})[0] == 403
        assert ask(url, "GET", "/v2/health/ready")[0] == 200


SLOW = Limits(body_seconds=0.5, body_bytes=2**20)


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (POST[:17], "the header lines did not arrive within 0.5 s"),
        (POST, "the header lines did not arrive"),
        (POST + b"Content-Length: 100\r\n\r\n", "the body did not arrive within 0.5 s"),
        (POST + b"Content-Length: 100\r\n\r\n{", "the body did not arrive"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", "the body did not arrive"),
        (POST.replace(b"/v2/models/m/infer", b"/invocations") + b"Content-Length: 100\r\n\r\n{", "the body did not"),
    ],
)
def test_who_sends_slowly_is_told_and_let_go(session, first, message):
    with running({"m": session}, limits=SLOW) as url:
        status, error = error_of(raw(url, first))
        assert status == 408
        assert message in error
        # A byte now and then does not help.
        status, _ = error_of(raw(url, first, b"X", b"X", b"X", pause=0.02))
        assert status in (400, 408)
        assert ask(url, "GET", "/ping")[0] == 200


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (POST + b"X: " + b"a" * (HEAD_BYTES + 1000), 431, "longer than 32768 bytes"),
        (b"GET /" + b"a" * (HEAD_BYTES + 1000), 431, "longer than 32768 bytes"),
        (POST + b"A: b\r\n" * 300 + b"Content-Length: 2\r\n\r\n{}", 400, "no valid HTTP request"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 300, 400, "no valid HTTP request"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "no valid HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "no valid HTTP request"),
        (POST + HEADER.encode() + b": \xb2\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 400, HEADER),
    ],
)
def test_what_is_no_proper_http_is_told_in_json(session, data, status, message):
    with running({"m": session}, limits=SLOW) as url:
        got, error = error_of(raw(url, data))
        assert (got, message in error) == (status, True), error


def test_there_are_only_so_many_connections(session):
    with running({"m": session}, limits=Limits(connections=3)) as url:
        address = (urlsplit(url).hostname, urlsplit(url).port)
        held = [socket.create_connection(address, timeout=20) for _ in range(3)]
        for one in held:
            one.sendall(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(15) == b"HTTP/1.1 200 OK"
        with socket.create_connection(address, timeout=20) as late:
            status, error = error_of(late.recv(65536) + late.recv(65536))
        assert status == 503
        assert "3 connections are open" in error
        for one in held:
            one.close()
        for _ in range(100):
            time.sleep(0.02)
            try:
                if ask(url, "GET", "/ping")[0] == 200:
                    return
            except OSError:
                continue
        raise AssertionError("the closed connections still count")


def test_what_waits_is_bounded_and_the_next_is_told_to_come_again(model_file):
    entered, leave = threading.Semaphore(0), threading.Event()

    class Slow(Session):
        def run(self, image, outputs=("prediction",)):
            entered.release()
            assert leave.wait(60)
            return super().run(image, outputs)

    body, length = encode_request(np.ones((4, 2, 4, 5), np.float32), ["prediction"])
    headers = {HEADER: str(length)}
    slow = Slow(model_file, provider="cpu", threads=1)
    with running({"m": slow}, limits=Limits(queue_rows=8)) as url, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, url, "POST", "/v2/models/m/infer", body, headers) for _ in range(2)]
        assert all(entered.acquire(timeout=20) for _ in waiting)
        assert asking.counted(url, "stm_queue_rows") == 8
        status, answer, back = ask(url, "POST", "/v2/models/m/infer", body, headers)
        assert status == 503
        assert back["retry-after"] == "1"
        assert b"8 images wait" in answer
        assert ask(url, "GET", "/v2/health/ready")[0] == 200
        leave.set()
        assert [one.result()[0] for one in waiting] == [200, 200]
        assert ask(url, "POST", "/v2/models/m/infer", body, headers)[0] == 200
        assert asking.counted(url, "stm_queue_rows") == 0


def test_an_answer_that_takes_too_long_is_given_up(model_file):
    leave = threading.Event()

    class Slow(Session):
        def run(self, image, outputs=("prediction",)):
            leave.wait(60)
            return super().run(image, outputs)

    slow = Slow(model_file, provider="cpu", threads=1)
    with running({"m": slow}, limits=Limits(request_seconds=0.3)) as url:
        status, answer, headers = ask(url, "POST", "/v2/models/m/infer", BODY, {HEADER: str(LENGTH)})
        assert status == 503
        assert "retry-after" in headers
        assert b"more than 0.3 s" in answer
        leave.set()
        for _ in range(100):
            if ask(url, "POST", "/v2/models/m/infer", BODY, {HEADER: str(LENGTH)})[0] == 200:
                return
        raise AssertionError("it did not recover")


def test_who_gives_up_in_a_batch_keeps_its_place_until_the_batch_has_ended_and_is_not_computed(model_file):
    entered, leave, computed = threading.Semaphore(0), threading.Event(), []

    class Slow(Session):
        def run(self, image, outputs=("prediction",)):
            computed.append(len(image))
            entered.release()
            assert leave.wait(60)
            return super().run(image, outputs)

    slow = Slow(model_file, provider="cpu", threads=1)
    limits = Limits(queue_rows=4, request_seconds=1.0)
    schedule = Schedule(runs=1, batch_rows=2, batch_seconds=0.0)
    headers = {HEADER: str(LENGTH)}
    with running({"m": slow}, limits=limits, schedule=schedule) as url, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, url, "POST", "/v2/models/m/infer", BODY, headers)]
        assert entered.acquire(timeout=20)
        waiting += [pool.submit(ask, url, "POST", "/v2/models/m/infer", BODY, headers) for _ in range(3)]
        assert [one.result()[0] for one in waiting] == [503] * 4
        assert asking.counted(url, "stm_queue_rows") == 4  # the thread is still taken, the batches wait for it
        status, answer, _ = ask(url, "POST", "/v2/models/m/infer", BODY, headers)
        assert status == 503
        assert b"4 images wait" in answer
        leave.set()
        for _ in range(200):
            if asking.counted(url, "stm_queue_rows") == 0:
                break
            time.sleep(0.02)
        assert ask(url, "POST", "/v2/models/m/infer", BODY, headers)[0] == 200
    assert computed == [1, 1]  # the first, which had begun, and the last


def test_bodies_together_are_bounded(session):
    with running({"m": session}, limits=Limits(total_bytes=2**21, body_bytes=2**21, json_bytes=1000)) as url:
        address = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(address, timeout=20) as held:
            held.sendall(POST + b"Content-Length: 2000000\r\n\r\n" + b"x" * 1_900_000)
            for _ in range(200):
                if asking.counted(url, "stm_body_bytes") > 1_800_000:
                    break
                time.sleep(0.02)
            status, answer, _ = ask(url, "POST", "/invocations", b"x" * 400_000)
            assert status == 503
            assert b"bodies of all requests together" in answer
        for _ in range(200):
            if asking.counted(url, "stm_body_bytes") == 0:
                break
            time.sleep(0.02)
        status, answer, _ = ask(url, "POST", "/invocations", b'{"inputs": [' + b" " * 2000 + b"]}")
        assert status == 413
        assert b"JSON is larger than 1000 bytes" in answer


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        ("v2/models/m/infer", b'{"inputs":[{"name":"image","datatype":"FP32","shape":[3,2,4,5],"data":[', b"1]}]}"),
        ("v2/models/m/explain", b'{"inputs":[{"name":"image","datatype":"FP32","shape":[3,2,4,5],"data":[', b"1]}]}"),
        ("invocations", b'{"inputs":[', b"1]}"),
    ],
)
def test_json_longer_than_what_the_model_takes_is_not_parsed(session, monkeypatch, path, start, end):
    parsed = []

    def reading(*asked, **more):
        parsed.append(asked)
        raise InputError("it was read")

    monkeypatch.setattr(inference, "decode_request", reading)
    monkeypatch.setattr(inference, "decode_invocation", reading)
    most = 65536 + 3 * (2 * 4 * 5 + 1) * 32
    fits = start + b" " * (most - len(start) - len(end)) + end
    with running({"m": session}, limits=Limits(rows=3)) as url:
        status, answer, _ = ask(url, "POST", f"/{path}", fits)
        assert (status, b"it was read" in answer, len(parsed)) == (400, True, 1)
        status, answer, _ = ask(url, "POST", f"/{path}", start + b"{}," * 100_000 + end)
    assert (status, len(parsed)) == (413, 1)
    assert (
        f"the JSON is larger than {most} bytes, in which 3 images (2, 4, 5) of this model have room".encode() in answer
    )


def test_what_is_held_before_a_token_is_checked_has_a_bound_for_all_connections(session):
    """Beyond a quarter of the bytes of all bodies the token is looked at first, and bodies are not read without one."""
    head = POST + b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
    limits = Limits(total_bytes=8 * 2**20, body_bytes=8 * 2**20)
    with running({"m": session}, token="secret-word", limits=limits) as url:
        address, opened, answers = urlsplit(url), [], []
        for _ in range(5):
            one = socket.create_connection((address.hostname, address.port), timeout=60)
            opened.append(one)
            one.sendall(head + b"x")
            one.settimeout(1.0 if len(opened) < 3 else 60)
            try:
                answers.append(one.recv(64)[9:12])
            except TimeoutError:
                answers.append(None)
        assert answers == [None, None, b"401", b"401", b"401"]
        opened[0].close()
        time.sleep(3)
        with socket.create_connection((address.hostname, address.port), timeout=1) as one:
            one.sendall(head + b"x")  # its place is free again
            with pytest.raises(TimeoutError):
                one.recv(64)
        for one in opened:
            one.close()
