"""Runs that nobody waits for any more: they end, they count until then, and no server that ends waits for them."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.model.questions import Reading
from deploy.model.session import Session
from deploy.model.stopping import start
from deploy.serving import inference
from deploy.serving.compute import Schedule
from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER, encode_request
from deploy.serving.reading.process import FileReader
from deploy.serving.server import running
from support import http_asking as asking
from support import long_model

ask, counted, BODY, LENGTH = asking.ask, asking.counted, asking.BODY, asking.LENGTH
INFER = "/v2/models/m/infer"


@pytest.fixture(scope="module")
def long_file(tmp_path_factory, toy):
    return long_model.write(toy, tmp_path_factory.mktemp("long") / "long.onnx")


def for_ever(rows=1):
    """Body and headers of a request that takes weeks."""
    images = np.full((rows, 2, 4, 5), long_model.FOR_EVER, np.float32)
    body, length = encode_request(images, ["prediction"])
    return body, {HEADER: str(length)}


def soon(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("batch", [None, 4])
def test_a_run_that_is_given_up_ends_and_makes_room(long_file, toy, batch):
    session = Session(long_file, provider="cpu", threads=1)
    images = toy.images(2)
    np.testing.assert_allclose(session.run(images)["prediction"], toy.expected(images)["prediction"], 1e-4)
    schedule = Schedule(runs=1, batch_rows=batch)
    with running({"m": session}, limits=Limits(request_seconds=0.5), schedule=schedule) as url:
        for _ in range(2):
            status, answer, _ = ask(url, "POST", INFER, *for_ever(2))
            assert status == 503
            assert b"took more than 0.5 s" in answer
            soon(lambda: counted(url, "stm_queue_rows") == 0)
            assert ask(url, "POST", INFER, BODY, {HEADER: str(LENGTH)})[0] == 200  # there is one thread


def test_a_batch_ends_when_all_its_requests_are_given_up(long_file):
    session = Session(long_file, provider="cpu", threads=1)
    schedule = Schedule(runs=1, batch_rows=3, batch_seconds=0.2)
    with running({"m": session}, limits=Limits(request_seconds=1.0), schedule=schedule) as url:
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, url, "POST", INFER, *for_ever()) for _ in range(3)]
            assert [one.result()[0] for one in asked] == [503] * 3
        soon(lambda: counted(url, "stm_queue_rows") == 0)
        assert ask(url, "POST", INFER, BODY, {HEADER: str(LENGTH)})[0] == 200


def test_a_run_that_does_not_end_counts_as_long_as_it_lasts(model_file):
    leave = threading.Event()

    class Hanging(Session):
        def run(self, image, outputs=("prediction",)):
            assert leave.wait(60)
            return super().run(image, outputs)

    hanging = Hanging(model_file, provider="cpu", threads=1)
    limits = Limits(request_seconds=0.5, queue_rows=1)
    with running({"m": hanging}, limits=limits, schedule=Schedule(runs=1)) as url:
        said = [ask(url, "POST", INFER, BODY, {HEADER: str(LENGTH)})[1] for _ in range(3)]
        assert counted(url, "stm_queue_rows") == 1
        leave.set()
        soon(lambda: counted(url, "stm_queue_rows") == 0)
        assert ask(url, "POST", INFER, BODY, {HEADER: str(LENGTH)})[0] == 200
    assert b"took more than 0.5 s" in said[0]
    assert all(b"1 images wait" in one for one in said[1:])


@pytest.mark.parametrize(("seconds", "status"), [(0.5, 503), (60.0, 200)])
def test_reading_running_and_writing_have_one_time_together(model_file, toy, monkeypatch, seconds, status):
    plain_read, plain_run = inference.decode_request, Session.run

    def reading(*asked, **more):
        time.sleep(0.4)
        return plain_read(*asked, **more)

    def run(self, *asked):
        time.sleep(0.4)
        return plain_run(self, *asked)

    monkeypatch.setattr(inference, "decode_request", reading)
    monkeypatch.setattr(Session, "run", run)
    body, _ = encode_request(toy.images(256), ["prediction"], binary=False)
    assert len(body) > inference._LARGE  # it is read in a thread
    with running({"m": Session(model_file, provider="cpu", threads=1)}, limits=Limits(request_seconds=seconds)) as url:
        got, answer, _ = ask(url, "POST", INFER, body)
    assert got == status
    assert (b"took more than 0.5 s" in answer) is (status == 503)


def test_what_waits_for_a_thread_is_left_out_and_not_kept():
    class Question:
        pass

    held, made, leave = Question(), [], threading.Event()
    gone = weakref.ref(held)

    async def give_up(pool):
        nonlocal held
        first = start(pool, lambda: leave.wait(60))
        second = start(pool, lambda question=held: made.append(question), lambda: made.append("its turn"))
        held = None
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        assert gone() is None
        assert made == []
        leave.set()
        return await first

    with ThreadPoolExecutor(1) as pool:
        assert asyncio.run(give_up(pool)) is True
    assert made == ["its turn"]


def test_a_call_tells_what_went_wrong():
    async def fail(pool):
        await start(pool, lambda: 1 // 0)

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        asyncio.run(fail(pool))


def test_a_file_that_nobody_waits_for_is_not_read_on(session, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("0.1 0.2 0.3\n" * 3_000_000)
    reader, ended = FileReader(), threading.Event()

    async def give_up(pool):
        reading = start(pool, lambda: reader.read(path, session.metadata, Reading()), ended.set)
        await asyncio.sleep(0.3)
        reading.cancel()

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(give_up(pool))
        assert ended.wait(1.5)  # its process needs longer to import what it needs


def test_a_server_that_ends_gives_up_what_takes_too_long(long_file):
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.serving.cli", f"m={long_file}", "--port", "0", "--provider", "cpu",
         "--runs", "1", "--threads", "1"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = []
    for line in process.stderr:
        log.append(line)
        if found := re.search(r"ready: (\S+)", line):
            break
    url = found[1]
    paths = [INFER, INFER, "/v2/models/m/versions/1/infer"]  # one that runs, one that waits, and another way
    try:
        with ThreadPoolExecutor(len(paths)) as pool:
            asked = [pool.submit(ask, url, "POST", path, *for_ever()) for path in paths]
            soon(lambda: counted(url, "stm_queue_rows") == len(paths))
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            answers = [one.result() for one in asked]
            log += process.communicate(timeout=30)[1:]
            assert time.monotonic() - began < 17
    finally:
        process.kill()
    assert process.returncode == 0
    for status, body, headers in answers:
        assert (status, headers["content-type"], headers["connection"]) == (503, "application/json", "close")
        assert "the server ends" in json.loads(body)["error"]
    assert "Traceback" not in "".join(log)
