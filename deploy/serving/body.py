"""Reading a request's body, no more of it and no longer than is allowed; and what long answers take beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from starlette.types import Receive

from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.refusals import Refused, busy

__all__ = ["Bodies"]


class Bodies:
    """Reads bodies, and knows how many bytes of them, and of long answers, are in memory.

    Every `read` that returns needs a `release` of as many bytes; one that raises has released its own.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self._metrics = limits, metrics
        self.held = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the whole body; its bytes count until `release`.

        Raises
        ------
        Refused
            413 for one that is too large, by its Content-Length or once it is; 408 for one that takes too long; 503
            when all bodies together are too large; 400 when the client has gone.
        """
        declared = headers.get(b"content-length")
        if declared is not None and declared.isdigit() and int(declared[:19]) > self.limits.body_bytes:
            raise self._too_large()
        # A body that does not come at all is the connection's to notice: see `deploy.serving.connection`.
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            self._take(0, len(body))
            return body
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "the client closed the connection before its body ended", close=True)
                    part = message.get("body", b"")
                    self._take(size, len(part))
                    size += len(part)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
                    message = await receive()
        except TimeoutError:
            self.release(size)
            text = f"the body did not arrive within {self.limits.body_seconds:g} s: send it faster, or less of it"
            raise Refused(408, text, close=True) from None
        except BaseException:
            self.release(size)
            raise

    def release(self, size: int) -> None:
        """Forget ``size`` bytes that were read."""
        self.held -= size
        self._metrics.gauge("body_bytes", self.held)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes of an answer while the block runs; one that is alone may be of any size.

        Raises
        ------
        Refused
            503 when all together are too many.
        """
        if self.held and self.held + size > self.limits.total_bytes:
            raise busy("the answers that clients have not taken yet are too large together")
        self.release(-size)
        try:
            yield
        finally:
            self.release(size)

    def _take(self, size: int, more: int) -> None:
        if size + more > self.limits.body_bytes:
            raise self._too_large()
        if self.held + more > self.limits.total_bytes:
            raise busy("the bodies of all requests together are too large", close=True)
        self.held += more
        self._metrics.gauge("body_bytes", self.held)

    def _too_large(self) -> Refused:
        text = f"the body is larger than {self.limits.body_bytes} bytes: send fewer images at a time"
        return Refused(413, text, close=True)
