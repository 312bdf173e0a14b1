"""What the metrics count of requests: each once, and the time that the server took for it."""

from __future__ import annotations

import re
import time

import pytest

from deploy.serving.limits import Limits
from deploy.serving.protocol import HEADER
from deploy.serving.server import running
from support import http_asking as asking

ask, counted = asking.ask, asking.counted


def _soon(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _counts(url):
    """Requests by route and status, and those in the histogram by route; without looks at the metrics."""
    text = ask(url, "GET", "/metrics")[1].decode()
    form = r'stm_(requests_total|request_seconds_count)\{route="(\w+)"(?:,status="(\d+)")?\} (\S+)'
    found = re.findall(form, text)
    return {(name, route, status): float(value) for name, route, status, value in found if route != "metrics"}


CHUNKED = asking.POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"


@pytest.mark.parametrize(
    ("sent", "route", "status"),
    [
        (CHUNKED, "infer", 408),
        (CHUNKED + b"12345", "infer", 400),
        (CHUNKED.replace(b"/infer", b"/versions/1/infer"), "infer", 408),
        (asking.POST + b"Content-Length: 100\r\n\r\n{", "other", 408),
        (asking.POST, "other", 408),
        (b"GET /" + b"a" * 40_000, "other", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00", "other", 400),
    ],
)
def test_a_request_that_its_connection_ends_is_counted_once(session, sent, route, status):
    with running({"m": session}, limits=Limits(body_seconds=0.5)) as url:
        before = _counts(url)
        assert asking.error_of(asking.raw(url, sent))[0] == status
        _soon(lambda: _counts(url) != before)
        time.sleep(0.3)  # for a second one
        after = _counts(url)
    more = {key: value - before.get(key, 0) for key, value in after.items()}
    told = {("requests_total", route, str(status)): 1}
    if route != "other":  # the application had it
        told["request_seconds_count", route, ""] = 1
    assert {key: value for key, value in more.items() if value} == told


@pytest.mark.parametrize("chunked", [True, False])
def test_seconds_are_those_of_the_answer_however_slowly_a_body_came(session, chunked):
    body = asking.BODY
    head = asking.POST + b"Connection: close\r\n" + HEADER.encode() + b": %d\r\n" % asking.LENGTH
    if chunked:
        parts = [head + b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)]
    else:
        parts = [head + b"Content-Length: %d\r\n\r\n" % len(body), body]
    with running({"m": session}) as url:
        for _ in range(2):
            assert asking.raw(url, *parts, pause=0.7).startswith(b"HTTP/1.1 200 ")
        _soon(lambda: counted(url, "stm_request_seconds_count", route="infer") == 2)
        assert counted(url, "stm_request_seconds_sum", route="infer") < 0.7
