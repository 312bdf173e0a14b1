"""What whoever runs a server needs: metrics and a description."""

import asyncio
import json
import os
import re
import subprocess
import sys

import numpy as np
import psutil
import pytest

from deploy.model.session import Session
from deploy.serving.body import Bodies
from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.openapi import describe
from deploy.serving.protocol import HEADER, encode_request
from deploy.serving.refusals import Refused
from deploy.serving.server import running
from support import http_asking as asking

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
