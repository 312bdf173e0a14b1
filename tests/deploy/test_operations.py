"""What whoever runs a server needs: metrics, a description, several processes, an end without losses."""

import asyncio
import contextlib
import json
import os
import queue
import re
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
from deploy.serving.body import Bodies
from deploy.serving.catalog import Catalog, Model, Version
from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.openapi import describe
from deploy.serving.protocol import HEADER, decode_response, encode_request
from deploy.serving.refusals import Refused
from deploy.serving.server import running
from deploy.serving.wanted import Wanted
from support import http_asking as asking
from support import serving_versions as versions

ask, counted = asking.ask, asking.counted

SAMPLE = re.compile(r'([a-z_]+)(\{([a-z0-9]+="[^"\\\n]*",?)+\})? -?[0-9.e+-]+|[a-z_]+(\{.*\})? \+?Inf')


@pytest.fixture(scope="module")
def url(model_file):
    session = Session(model_file, provider="cpu", threads=1)
    with running({"m": session, "n": session}) as url:
        yield url


def test_metrics_count_what_was_asked(url, toy):
    before = {s: counted(url, "stm_requests_total", route="infer", status=s) for s in ("200", "400")}
    rows = counted(url, "stm_rows_total", model="n")
    body, length = encode_request(toy.images(3), ["prediction"])
    for _ in range(20):
        assert ask(url, "POST", "/v2/models/n/infer", body, {HEADER: str(length)})[0] == 200
    for _ in range(4):
        assert ask(url, "POST", "/v2/models/n/infer", b"{")[0] == 400
    ask(url, "GET", "/nowhere")
    assert counted(url, "stm_requests_total", route="infer", status="200") == before["200"] + 20
    assert counted(url, "stm_requests_total", route="infer", status="400") == before["400"] + 4
    assert counted(url, "stm_requests_total", route="other", status="404") >= 1
    assert counted(url, "stm_rows_total", model="n") == rows + 60
    assert counted(url, "stm_request_seconds_count", route="infer") >= 24
    assert counted(url, "stm_request_seconds_bucket", route="infer", le="+Inf") == counted(
        url, "stm_request_seconds_count", route="infer"
    )
    assert counted(url, "process_resident_memory_bytes") == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert counted(url, "process_cpu_seconds_total") > 0
    assert counted(url, "stm_workers") == 1


def test_metrics_are_the_text_that_prometheus_reads(url):
    status, text, headers = ask(url, "GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    kinds, seen = {}, set()
    for line in text.decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("#"):
            assert SAMPLE.fullmatch(line), line
            assert line not in seen
            seen.add(line)
            name = re.match("[a-z_]+", line)[0]
            assert name in kinds or re.sub("_(bucket|sum|count)$", "", name) in kinds, line
    assert "stm_model_info" in kinds
    assert 'sha256="' in text.decode()


def test_the_histogram_is_of_what_was_put_in():
    metrics = Metrics(["a"])
    for seconds in (0.0001, 0.0005, 0.3, 99.0):
        metrics.request("infer", 200, seconds)
    metrics.request("explain", 418, 0.1)
    text = metrics.text()
    found = dict(re.findall(r'stm_request_seconds_bucket\{route="infer",le="([^"]+)"\} (\S+)', text))
    assert {le: float(found[le]) for le in ("0.0005", "0.25", "0.5", "10.0", "+Inf")} == {
        "0.0005": 2, "0.25": 2, "0.5": 3, "10.0": 3, "+Inf": 4
    }  # fmt: skip
    assert 'stm_request_seconds_sum{route="infer"} 99.3' in text
    assert 'stm_requests_total{route="explain",status="other"} 1' in text


def test_workers_count_in_one_place():
    cells = np.zeros((2, Metrics.width(["a"])))
    one, two = Metrics(["a"], cells, 0), Metrics(["a"], cells, 1)
    one.rows("a", 3)
    two.rows("a", 4)
    assert one.count("rows", "a") == two.count("rows", "a") == 7
    assert one.processes() == [os.getpid()] * 2
    two.gauge("queue_rows", 2000.0)
    replaced = Metrics(["a"], cells, 1)  # of a worker that died with a full queue
    assert replaced.count("queue_rows") == 0
    assert replaced.count("rows", "a") == 7


def test_processor_time_of_a_worker_that_ended_is_kept():
    cells = np.zeros((2, Metrics.width(["a"])))
    one, two = Metrics(["a"], cells, 0), Metrics(["a"], cells, 1)
    work = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE) as process:
        cells[1, two._places["pid"]] = process.pid
        process.stdout.read(1)
        before = one.processor_seconds()
        process.kill()
    assert one.processor_seconds() >= before
    replaced = Metrics(["a"], cells, 1)
    assert one.processor_seconds() >= before
    assert cells[1, replaced._places["seconds_ended"]] > 0.4


def test_bodies_in_memory_are_counted_in_the_worker_that_holds_them():
    cells = np.zeros((2, Metrics.width(["a"])))
    one, two = Metrics(["a"], cells, 0), Metrics(["a"], cells, 1)
    bodies = Bodies(Limits(body_bytes=10), one)

    def receive(size, more):
        async def message():
            return {"type": "http.request", "body": b"x" * size, "more_body": more}

        return message

    assert asyncio.run(bodies.read({}, receive(7, False))) == b"x" * 7
    assert two.count("body_bytes") == 7  # whichever worker is asked
    with pytest.raises(Refused, match="larger than 10 bytes"):
        asyncio.run(bodies.read({}, receive(4, True)))
    assert two.count("body_bytes") == 7
    bodies.release(7)
    assert two.count("body_bytes") == 0


def test_the_description_names_every_route(url):
    about = json.loads(ask(url, "GET", "/openapi.json")[1])
    assert about["openapi"] == "3.1.0"
    described = set()
    for path, operations in about["paths"].items():
        for method in {"get", "post"} & operations.keys():
            described.add((method.upper(), path))
            assert {"200", "400", "403", "405", "500"} <= operations[method]["responses"].keys()
    for endpoint in json.loads(ask(url, "GET", "/v2/models")[1])["endpoints"]:
        method, path = endpoint.split()
        if path == "/":
            continue  # the page
        assert (method, re.sub("/models/[mn](?=/|$)", "/models/{model}", path)) in described, endpoint
    names = about["paths"]["/v2/models/{model}"]["parameters"][0]["schema"]["enum"]
    assert names == ["m", "n"]
    assert "security" not in about
    guarded = describe(["m"], "1", True)
    assert guarded["security"] == [{"token": []}]
    assert guarded["paths"]["/ping"]["get"]["security"] == []


def test_version_and_server_metadata(url):
    version = json.loads(ask(url, "GET", "/version")[1])
    assert version["name"] == "stm-lab"
    server = json.loads(ask(url, "GET", "/v2")[1])
    assert server["version"] == version["version"]
    assert server["models"] == ["m", "n"]


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
