"""The ways of a run: on the event loop, in threads, in batches; and the pixel that an explanation is of."""

import argparse
import gc
import http.client
import json
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton

from deploy.model.session import Session
from deploy.serving import inference
from deploy.serving import options as serving_options
from deploy.serving.compute import Compute, Schedule
from deploy.serving.heads import Heads
from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.protocol import HEADER, decode_request, decode_response, encode_request
from deploy.serving.server import running
from stm_models.errors import InputError
from support import http_asking as asking

ask = asking.ask
INFER = "/v2/models/m/infer"


class Client:
    """One connection, kept open."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def infer(self, images, outputs, path=INFER, **options):
        body, length = encode_request(images, outputs, **options)
        self.connection.request("POST", path, body, {} if length is None else {HEADER: str(length)})
        response = self.connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return decode_response(answer, response.headers[HEADER])


@pytest.mark.parametrize("inline", [True, False])
def test_the_hundredth_request_is_answered_like_the_first(session, toy, inline):
    """Known heads and short runs take a shorter way, which nobody may notice."""
    with running({"m": session}, schedule=Schedule(inline=inline)) as url:
        client = Client(url)
        for turn in range(100):
            images = toy.images(1 + turn % 3, turn)
            names = [("prediction",), ("gradient", "prediction"), ("distance",)][turn % 3]
            got, head = client.infer(images, names, request_id=None if turn % 5 else str(turn))
            assert tuple(got) == names
            assert head.get("id") == (None if turn % 5 else str(turn))
            assert (head["model_name"], head["model_version"]) == ("m", "1")
            for name, values in got.items():
                np.testing.assert_allclose(values, toy.expected(images)[name], rtol=1e-3, atol=1e-3)
        wrong = toy.images(1)
        wrong[0, 1, 2, 3] = np.nan
        body, length = encode_request(wrong, ["prediction"])
        for _ in range(3):
            status, answer, _ = ask(url, "POST", INFER, body, {HEADER: str(length)})
            assert status == 400
            assert b"row 0 has 1 values that are NaN" in answer
        for cut in (body[:-1], body + b"x"):
            assert ask(url, "POST", INFER, cut, {HEADER: str(length)})[0] == 400
        assert asking.counted(url, "stm_rows_total", model="m") == sum(1 + turn % 3 for turn in range(100))
        assert asking.counted(url, "stm_requests_total", route="infer", status="200") == 100
        assert asking.counted(url, "stm_requests_total", route="infer", status="400") == 5


def test_a_known_head_keeps_nothing_of_the_body_that_it_came_with(toy):
    body, length = encode_request(toy.images(3), ["prediction"])
    request = decode_request(body, str(length), image=toy.shape, outputs=["prediction"])
    heads = Heads()
    before = sys.getrefcount(body)
    heads.remember(body, length, request, ("prediction",))
    del request
    assert heads.find(body, length) is not None
    assert sys.getrefcount(body) < before  # the request's image held it


@pytest.fixture
def no_collection():
    """Without it only what no cycle holds goes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class _Held:
    """What a request has made on its way."""


def _gone(made, seconds=10):
    end = time.monotonic() + seconds
    while any(one() is not None for one in made) and time.monotonic() < end:
        time.sleep(0.02)
    return len(made), sum(one() is not None for one in made)


@pytest.mark.parametrize("path", [INFER, "/v2/models/m/versions/1/infer"])
def test_what_a_large_request_made_goes_when_it_is_refused(session, toy, monkeypatch, no_collection, path):
    made = []

    def refuse(*asked, **more):
        held = _Held()
        made.append(weakref.ref(held))
        raise InputError("it is refused")

    monkeypatch.setattr(inference, "decode_request", refuse)
    body, _ = encode_request(toy.images(256), ["prediction"], binary=False)
    assert len(body) > inference._LARGE  # it is read in a thread
    with running({"m": session}) as url:
        for _ in range(3):
            assert ask(url, "POST", path, body)[0] == 400
        assert _gone(made) == (3, 0)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("together", [1, 3])
def test_what_a_run_made_goes_when_it_is_refused(model_file, no_collection, batch, together):
    made = []

    class Refusing(Session):
        def run(self, image, outputs=("prediction",)):
            held = _Held()
            made.append(weakref.ref(held))
            raise InputError("it is refused")

    body, length = encode_request(np.ones((1, 2, 4, 5), np.float32), ["prediction"])
    refusing = Refusing(model_file, provider="cpu", threads=1)
    schedule = Schedule(batch_rows=batch, batch_seconds=0.5)
    with running({"m": refusing}, schedule=schedule) as url, ThreadPoolExecutor(together) as pool:
        asked = [pool.submit(ask, url, "POST", INFER, body, {HEADER: str(length)}) for _ in range(together)]
        assert [one.result()[0] for one in asked] == [400] * together
        assert _gone(made)[1] == 0
    assert made


def test_a_long_run_is_not_made_on_the_event_loop(model_file):
    entered, leave = threading.Event(), threading.Event()
    leave.set()

    class Slow(Session):
        def run(self, image, outputs=("prediction",)):
            entered.set()
            leave.wait(60)
            for _ in range(200 if leave.is_set() else 1):  # more than a millisecond
                found = super().run(image, outputs)
            return found

    body, length = encode_request(np.ones((1, 2, 4, 5), np.float32), ["prediction"])
    slow = Slow(model_file, provider="cpu", threads=1)
    with running({"m": slow}) as url, ThreadPoolExecutor(1) as pool:
        for _ in range(12):
            assert ask(url, "POST", INFER, body, {HEADER: str(length)})[0] == 200
        entered.clear()
        leave.clear()
        future = pool.submit(ask, url, "POST", INFER, body, {HEADER: str(length)})
        assert entered.wait(20)
        assert ask(url, "GET", "/v2/health/live")[0] == 200
        assert not future.done()
        leave.set()
        assert future.result()[0] == 200


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_batches_give_everybody_their_own_rows(session, toy, rows):
    """Eight clients at once, up to twelve images together: every answer is that of its own images."""
    with running({"m": session}, schedule=Schedule(batch_rows=12, batch_seconds=0.2)) as url:

        def one(seed):
            client = Client(url)
            images = toy.images(rows, seed)
            names = ("prediction", "gradient") if seed % 2 else ("prediction",)
            got, _ = client.infer(images, names)
            expected = toy.expected(images)
            return tuple(got) == names and all(
                np.allclose(got[name], expected[name], rtol=1e-3, atol=1e-3) for name in names
            )

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(one, range(48)))
        batches, together = (asking.counted(url, f"stm_{name}_total") for name in ("batches", "batched_rows"))
        assert batches >= 1
        assert 2 * rows * batches <= together <= 12 * batches


def test_one_bad_image_in_a_batch_harms_nobody_else(session, toy):
    huge = np.full((1, 2, 4, 5), 1e30, np.float32)  # whose prediction overflows
    with running({"m": session}, schedule=Schedule(batch_rows=64, batch_seconds=0.5)) as url:

        def one(seed):
            images = huge if seed == 3 else toy.images(1, seed)
            body, length = encode_request(images, ["prediction"])
            return seed, images, ask(url, "POST", INFER, body, {HEADER: str(length)})

        with ThreadPoolExecutor(8) as pool:
            for seed, images, (status, answer, headers) in pool.map(one, range(8)):
                if seed == 3:
                    assert status == 400
                    assert b"prediction of image row 0 is not a finite number" in answer
                else:
                    got, _ = decode_response(answer, headers[HEADER])
                    np.testing.assert_allclose(
                        got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3
                    )
        assert asking.counted(url, "stm_batches_total") >= 1


def test_a_request_as_large_as_a_batch_goes_by_itself(session, toy):
    with running({"m": session}, schedule=Schedule(batch_rows=2, batch_seconds=1.0)) as url:
        client = Client(url)
        images = toy.images(5)
        got, _ = client.infer(images, ["prediction"])
        np.testing.assert_allclose(got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3)
        assert asking.counted(url, "stm_batches_total") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_rows": 0}, "batch-rows is 0"), ({"batch_seconds": 2}, "2000 ms"), ({"runs": -1}, "runs is -1")],
)
def test_schedules_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Schedule(**options)


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("binary", [True, False])
def test_the_pixel_to_explain_is_a_second_tensor(map_toy, map_file, toy, binary, batch):
    images = toy.images(3)
    session = Session(map_file, provider="cpu", threads=1)
    with running({"m": session}, schedule=Schedule(batch_rows=batch)) as url:
        client = Client(url)
        about = json.loads(ask(url, "GET", "/v2/models/m")[1])
        assert about["inputs"][1] == {"name": "focus", "datatype": "INT64", "shape": [-1]}
        for focus in ([0, 19, 7], [5], None):
            for _ in range(12):
                got, _ = client.infer(images, ["gradient", "prediction"], focus=focus, binary=binary)
                want = map_toy.expected(images, np.broadcast_to([-1] if focus is None else focus, 3))
                np.testing.assert_allclose(got["gradient"], want, rtol=1e-5)
        explained, _ = client.infer(images, ["gradient"], "/v2/models/m/explain", focus=[2], binary=binary)
        np.testing.assert_allclose(explained["gradient"], map_toy.expected(images, [2, 2, 2]), rtol=1e-5)
        for focus, message in (([20], "from 0 to 19"), ([1, 2], "2 pixels for 3 images"), ([-2], "focus is -2")):
            body, length = encode_request(images, ["gradient"], focus=focus, binary=binary)
            status, answer, _ = ask(url, "POST", INFER, body, {HEADER: str(length)} if length else {})
            assert status == 400
            assert message in json.loads(answer)["error"]


def test_a_third_party_client_sends_the_pixel_too(map_toy, map_file, toy):
    images = toy.images(2)
    with running({"m": Session(map_file, provider="cpu", threads=1)}) as url:
        client = triton.InferenceServerClient(urlsplit(url).netloc)
        image = triton.InferInput("image", list(images.shape), "FP32")
        image.set_data_from_numpy(images)
        focus = triton.InferInput("focus", [2], "INT64")
        focus.set_data_from_numpy(np.array([3, 11], np.int64))
        answer = client.infer("m", [image, focus], outputs=[triton.InferRequestedOutput("gradient")])
        np.testing.assert_allclose(answer.as_numpy("gradient"), map_toy.expected(images, [3, 11]), rtol=1e-5)
        client.close()


def test_a_model_without_a_choice_of_pixels_says_so(session, toy):
    body, length = encode_request(toy.images(1), ["gradient"], focus=[0])
    with running({"m": session}) as url:
        status, answer, _ = ask(url, "POST", INFER, body, {HEADER: str(length)})
    assert status == 400
    assert b"leave focus out" in answer


@pytest.mark.parametrize(
    ("runs", "seconds", "short"), [(2, 5e-4, True), (2, 2e-3, False), (1, 2e-3, True), (1, 6e-3, False)]
)
def test_where_runs_wait_for_each_other_longer_ones_are_made_on_the_event_loop(session, runs, seconds, short):
    compute = Compute(Limits(), Metrics(["m"]), Schedule(runs=runs))
    loaded = SimpleNamespace(session=session, times={("key", 1): (8, seconds)})
    assert compute.is_short(loaded, ("key", 1)) is short


@pytest.mark.parametrize(
    ("given", "runs"), [([], 4), (["--workers", "2"], 2), (["--workers", "9"], 1), (["--runs", "3"], 3)]
)
def test_workers_share_the_cores(monkeypatch, given, runs):
    monkeypatch.setattr(serving_options, "cores", lambda: 4)
    parser = argparse.ArgumentParser()
    serving_options.options(parser)
    assert serving_options.plan_from(parser.parse_args(given)).schedule.runs == runs
    with pytest.raises(InputError, match="runs is -1, expected 1 or more"):
        serving_options.plan_from(parser.parse_args(["--runs", "-1"]))
