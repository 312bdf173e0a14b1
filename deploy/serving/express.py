"""The shortest way of a request: known head, short run, answered at once, without a task and without a framework."""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.types import Scope

from deploy.serving.catalog import Model
from deploy.serving.compute import Compute
from deploy.serving.metrics import Metrics
from deploy.serving.protocol import HEADER
from deploy.serving.refusals import Refused
from deploy.serving.security import PLAIN_HEADERS, Guard
from stm_models.errors import InputError

__all__ = ["MOST_BYTES", "Express"]

MOST_BYTES = 2**20
"""Of a body that is answered so: a connection holds it before anybody has looked at the request."""
_HEADER = HEADER.lower().encode()
_START = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n" + b"".join(
    b"%s: %s\r\n" % pair for pair in PLAIN_HEADERS
)


class Express:
    """Answers what can be answered within a millisecond; everything else goes the usual way.

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

    def answer(self, path: bytes, scope: Scope, body: bytes, keep_alive: bool) -> bytes | None:
        """Return the whole HTTP answer; None for a request that has to go the usual way, whatever the reason."""
        began = time.perf_counter()
        headers = dict(scope["headers"])
        length = headers.get(_HEADER)
        if length is None or not length.isdigit() or len(length) > 7:
            return None
        offset = int(length)
        model = self._models[path]
        loaded = model.current
        head = loaded.heads.find(body, offset)
        if head is None or not self._compute.is_short(loaded, head.key):
            return None
        try:
            self._guard.check(scope, headers)
            outputs = self._compute.now(loaded, head.key, head.image(body, offset))
        except (InputError, Refused):
            return None
        text, tensors = head.answer(model.name, loaded.label, outputs)
        size = len(text) + sum(map(len, tensors))
        lines = b"%scontent-length: %d\r\n%s: %d\r\n%s\r\n" % (
            _START, size, _HEADER, len(text), b"" if keep_alive else b"connection: close\r\n",
        )  # fmt: skip
        self._metrics.rows(model.name, head.rows)
        self._metrics.request("infer", 200, time.perf_counter() - began)
        return b"".join((lines, text, *tensors))
