"""The shortest way of a request: known head, short run, answered at once, without a task and without a framework."""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from deploy.serving.catalog import Model
from deploy.serving.compute import Compute
from deploy.serving.limits import LONG
from deploy.serving.metrics import Metrics
from deploy.serving.protocol import HEADER
from deploy.serving.refusals import refusal
from deploy.serving.security import PAGE_HEADERS, PLAIN_HEADERS, Guard

__all__ = ["MOST_BYTES", "Express"]

MOST_BYTES = 2**20
"""Of a body that is answered so: a connection holds it before anybody has looked at the request."""
_HEADER = HEADER.lower().encode()
_START = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n" + b"".join(
    b"%s: %s\r\n" % pair for pair in PLAIN_HEADERS
)


class Express:
    """Answers shortly what can be answered within a millisecond; everything else goes the usual way.

    Parameters
    ----------
    models : mapping of bytes to Model
        By the path of their infer route.
    """

    def __init__(self, models: Mapping[bytes, Model], guard: Guard, metrics: Metrics, compute: Compute) -> None:
        self._models, self._guard, self._metrics, self._compute = dict(models), guard, metrics, compute

    def takes(self, path: bytes) -> bool:
        """Tell whether ``path`` can be answered so at all."""
        return path in self._models

    def answer(self, path: bytes, scope: Scope, body: bytes, keep_alive: bool) -> tuple[bytes, bool] | None:
        """Return the whole HTTP answer and whether the connection goes on; None for what has to go the usual way.

        A refusal is an answer: what was checked and counted here must not be so again.
        """
        began = time.perf_counter()
        headers = dict(scope["headers"])
        length = headers.get(_HEADER)
        if length is None or not length.isdigit() or len(length) > 7:
            return None
        offset = int(length)
        model = self._models[path]
        loaded = model.current
        head = loaded.heads.find(body, offset)
        # A long answer would have to count until its client has taken it.
        if head is None or not 0 < head.answer_size <= LONG or not self._compute.is_short(loaded, head.key):
            return None
        try:
            self._guard.check(scope, headers)
            outputs = self._compute.now(loaded, head.key, head.image(body, offset))
        except Exception as error:  # every one becomes an answer
            return self._refused(error, began, keep_alive)
        text, tensors = head.answer(model.name, loaded.label, outputs)
        lines = b"%scontent-length: %d\r\n%s: %d\r\n%s\r\n" % (
            _START, head.answer_size, _HEADER, len(text), b"" if keep_alive else b"connection: close\r\n",
        )  # fmt: skip
        self._metrics.rows(model.name, head.rows)
        self._metrics.request("infer", 200, time.perf_counter() - began)
        return b"".join((lines, text, *tensors)), keep_alive

    def _refused(self, error: Exception, began: float, keep_alive: bool) -> tuple[bytes, bool]:
        status, body, more = refusal(error)
        keep_alive = keep_alive and more.get("connection") != "close"
        pairs = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *PAGE_HEADERS]
        pairs += [(name.encode(), value.encode()) for name, value in more.items() if name != "connection"]
        if not keep_alive:
            pairs.append((b"connection", b"close"))
        self._metrics.request("infer", status, time.perf_counter() - began)
        return b"".join((STATUS_LINE[status], *(b"%s: %s\r\n" % pair for pair in pairs), b"\r\n", body)), keep_alive
