"""Several processes on one port: they take versions together, replace each other, and end without losses."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from deploy.model.session import Session
from deploy.serving import workers
from deploy.serving.catalog import Catalog, Model, Version
from deploy.serving.metrics import Metrics
from deploy.serving.protocol import HEADER, decode_response, encode_request
from deploy.serving.wanted import Wanted
from support import http_asking as asking
from support import serving_versions as versions

ask, counted = asking.ask, asking.counted


@pytest.fixture(scope="module")
def crew(tmp_path_factory):
    """Two workers that follow an alias: the process, its address, folder, and version 1's arithmetic."""
    folder = tmp_path_factory.mktemp("crew")
    toy = versions.write_good(folder, 1)
    versions.point(folder, 1)
    with versions.serving(folder, "--workers", "2", "--poll-seconds", "0.1") as (process, url, log):
        yield process, url, folder, toy, log
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()


def _infer(url, images):
    body, length = encode_request(images, ["prediction"])
    status, answer, headers = ask(url, "POST", "/v2/models/toy/infer", body, {HEADER: str(length)})
    assert status == 200, answer
    return decode_response(answer, headers[HEADER])


def _soon(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _workers(process):
    found = []
    for one in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # one that ends meanwhile
            found += [one] if "spawn_main" in " ".join(one.cmdline()) else []
    return found


def test_workers_share_a_port_and_their_counters(crew):
    _, url, _, toy, _ = crew
    images = toy.images(2)
    before = counted(url, "stm_rows_total", model="toy")

    def one(seed):
        got, _ = _infer(url, images)
        return np.allclose(got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))
    assert counted(url, "stm_rows_total", model="toy") == before + 128
    assert counted(url, "stm_workers") == 2


def test_all_workers_take_a_new_version_or_none_does(crew):
    _, url, folder, _, _ = crew
    two = versions.write_good(folder, 2)
    images = two.images(2)
    versions.point(folder, 2)
    _soon(lambda: counted(url, "stm_swaps_total", model="toy") == 2)
    for _ in range(12):
        got, head = _infer(url, images)
        assert head["model_version"] == "2"
        np.testing.assert_allclose(got["prediction"], two.expected(images)["prediction"], rtol=1e-3, atol=1e-3)
    versions.write_bad(folder, 3, "damaged")
    versions.point(folder, 3)
    _soon(lambda: counted(url, "stm_refused_total", model="toy") == 2)
    assert {_infer(url, images)[1]["model_version"] for _ in range(12)} == {"2"}
    assert json.loads(ask(url, "GET", "/v2/models/toy/ready")[1])["refused"]["version"] == "3"
    versions.point(folder, 2)
    for _ in range(12):  # of either worker
        _soon(lambda: "refused" not in json.loads(ask(url, "GET", "/v2/models/toy/ready")[1]))


def test_a_worker_that_dies_is_replaced_with_the_version_that_is_served(crew):
    process, url, _, toy, log = crew
    images = toy.images(1)
    served = _infer(url, images)[1]["model_version"]
    _soon(lambda: len(_workers(process)) == 2)
    time.sleep(5.5)  # it is not replaced twice in five seconds
    victim = _workers(process)[0]
    victim.kill()
    _soon(lambda: len(alive := _workers(process)) == 2 and victim.pid not in {one.pid for one in alive})
    assert "another one takes its place" in log.read_text()
    # While it starts, the other one answers; and so it does afterwards.
    for _ in range(30):
        assert _infer(url, images)[1]["model_version"] == served
        time.sleep(0.02)


def test_workers_that_take_the_place_of_others_know_what_was_refused(crew):
    process, url, folder, _, _ = crew
    served = json.loads(ask(url, "GET", "/v2/models/toy/ready")[1])["version"]
    versions.write_bad(folder, 9, "damaged")
    versions.point(folder, 9)
    _soon(lambda: "refused" in json.loads(ask(url, "GET", "/v2/models/toy/ready")[1]))
    _soon(lambda: len(_workers(process)) == 2)
    time.sleep(5.5)  # none is replaced twice in five seconds
    old = _workers(process)
    for one in old:
        one.kill()
    _soon(lambda: len(new := _workers(process)) == 2 and not {one.pid for one in new} & {one.pid for one in old})
    for _ in range(12):  # of either worker
        _soon(lambda: "refused" in json.loads(ask(url, "GET", "/v2/models/toy/ready")[1]), 20)
    told = json.loads(ask(url, "GET", "/v2/models/toy/ready")[1])
    assert (told["version"], told["refused"]["version"]) == (served, "9")
    versions.point(folder, int(served))
    for _ in range(12):
        _soon(lambda: "refused" not in json.loads(ask(url, "GET", "/v2/models/toy/ready")[1]))


def test_workers_answer_what_they_began_before_they_end(tmp_path):
    toy = versions.write_good(tmp_path, 1)
    versions.point(tmp_path, 1)
    stop, answers, broken = threading.Event(), [], []
    images = toy.images(256)
    body, length = encode_request(images, ["prediction", "gradient"])
    with versions.serving(tmp_path, "--workers", "2") as (process, url, _):

        def client(_):
            while not stop.is_set():
                try:
                    status, answer, headers = ask(url, "POST", "/v2/models/toy/infer", body, {HEADER: str(length)})
                except ConnectionRefusedError:
                    return  # it has gone
                except OSError as error:
                    broken.append(error)  # accepted by nobody, or half an answer
                    return
                got, _ = decode_response(answer, headers[HEADER])
                answers.append(status == 200 and len(got["gradient"]) == 256)

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client, n) for n in range(4)]
            _soon(lambda: len(answers) > 20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0
            stop.set()
            for one in clients:
                one.result(30)
    assert all(answers)
    # A connection that nobody had accepted when the port was closed may be reset; an answer under way may not.
    assert not [error for error in broken if "IncompleteRead" in repr(error)]


@pytest.mark.parametrize("whom", [os.killpg, os.kill], ids=["all processes", "the first one"])
def test_a_server_that_is_ended_while_its_workers_start_ends_well(model_file, whom):
    command = [sys.executable, "-m", "deploy.serving.cli", str(model_file), "--workers", "2", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--provider", "cpu"], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        _soon(lambda: len(_workers(process)) == 2)
        whom(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, said) == (0, "")


def test_a_worker_that_died_unheard_is_not_waited_for():
    dead = SimpleNamespace(said=queue.SimpleQueue(), process=SimpleNamespace(is_alive=lambda: False))
    began = time.monotonic()
    assert workers._reply(dead) is None
    assert time.monotonic() - began < 30
    dead.said.put("ready")  # said before it died
    assert workers._reply(dead) == "ready"


class _Told:
    """A worker as the crew sees it: what it says to every offer, and the versions that it was offered."""

    def __init__(self, *words, alive=True):
        self.said, self.began, self.offered, self.words = queue.SimpleQueue(), 0.0, [], words
        self.kinds, self.refused = [], None
        self.process = SimpleNamespace(is_alive=lambda: alive)
        self.pipe = self

    def send(self, message):
        if not self.process.is_alive():
            raise BrokenPipeError
        kind, _, value = message
        if kind == "refused":
            self.refused = value
            return
        self.kinds.append(kind)
        self.offered.append(value.label)
        for word in self.words:
            self.said.put(word)


def _crew(*told):
    """A crew that serves version 1 with these workers."""
    wanted = [Wanted("m", "models:/m@a", Version("1", Path("1.onnx")))]
    crew = workers._Crew(SimpleNamespace(workers=len(told)), wanted, None)
    crew._workers = list(told)
    return crew


@pytest.mark.parametrize(
    ("others", "taken", "offered"),
    [
        ([_Told(alive=False)], True, ["2"]),
        ([_Told("ready", True)], True, ["2"]),  # it took the place of a dead one a moment ago
        ([_Told(False)], False, ["2", "1"]),
        ([_Told(None)], False, ["2", "1"]),  # it died of the version
    ],
    ids=["dead", "new", "refusing", "dying"],
)
def test_a_version_is_taken_by_all_workers_that_live_or_by_none(others, taken, offered):
    one = _Told(True)
    crew = _crew(one, *others)
    assert crew.offer("m", Version("2", Path("2.onnx"))) is taken
    assert one.offered == offered


def test_no_version_is_taken_while_every_worker_is_dead():
    crew = _crew(_Told(alive=False))
    assert crew.offer("m", Version("2", Path("2.onnx"))) is False


def test_all_workers_are_told_what_was_refused_until_it_is_wanted_no_more():
    why = {"version": "2", "reason": "damaged", "time": "now"}
    one, two = _Told(True), _Told(why)
    crew = _crew(one, two)
    assert crew.offer("m", Version("2", Path("2.onnx"))) is False
    assert (one.kinds, two.kinds) == (["offer", "return"], ["offer"])
    assert one.refused == two.refused == why
    crew.back("m")
    assert one.refused is two.refused is None
    dying = _crew(one := _Told(True), _Told(None))
    dying.offer("m", Version("3", Path("3.onnx")))
    assert (one.refused["version"], one.refused["reason"][:22]) == ("3", "a worker process ended")


def test_a_worker_that_returns_to_what_was_served_has_swapped_nothing(tmp_path):
    for number in (1, 2):
        versions.write_good(tmp_path, number)
    first, second = (Version(str(number), tmp_path / f"{number}.onnx") for number in (1, 2))

    def opener(path):
        return Session(path, provider="cpu", threads=1)

    catalog, metrics = Catalog([Model("m", opener(first.path), "1")]), Metrics(["m"])
    messages, said = [("offer", "m", second), ("return", "m", first), ("refused", "m", {"version": "2"})], []
    pipe = SimpleNamespace(recv=lambda: messages.pop(0), send=said.append)
    while messages:
        workers._follow(pipe, catalog, opener, metrics)
    assert said == [True, True]
    assert (metrics.count("swaps", "m"), metrics.count("refused", "m")) == (1, 0)
    assert (catalog.models["m"].current.label, catalog.models["m"].refused) == ("1", {"version": "2"})
