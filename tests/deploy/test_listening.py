"""A port of one's own, or a plain word why not."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from deploy.serving.listening import beside, listen
from stm_models.errors import InputError

APP = Starlette(routes=[Route("/", lambda request: PlainTextResponse("here"))])


def test_answers_while_the_block_runs():
    listener, url = listen("127.0.0.1", 0)
    with listener, beside(APP, listener), urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"here"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=2)


def test_a_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="in use; give another"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "port", "words"), [("127.0.0.1", 70000, "0 .* to 65535"), ("no.such.host", 0, r"no\.such")]
)
def test_what_cannot_be(host, port, words):
    with pytest.raises(InputError, match=words):
        listen(host, port)
