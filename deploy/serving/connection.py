"""One HTTP connection: uvicorn's, with bounds on header lines and on waiting, and a short way for short answers."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import Any, ClassVar, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from deploy.serving.express import MOST_BYTES, Express
from deploy.serving.limits import Limits
from deploy.serving.page import upload as uploads
from deploy.serving.security import PAGE_HEADERS
from deploy.serving.strict_json import dump_json

__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "connection_class"]

HEAD_BYTES = 32 * 1024
"""Of the request line and the header lines together."""
HEAD_SECONDS = 10.0
"""For them to arrive, or as long as a body may take, whichever is less."""
_READ_SECONDS = 30.0
"""For a client to go on reading an answer."""
_MOST_LINES = 256
_UPLOADS = b"/ask"
_SHARE = 4  # of the bytes of all bodies one part may be held before anything is checked


def connection_class(limits: Limits, express: Express | None = None) -> type[HttpToolsProtocol]:
    """Return the class of connections to a server with these limits."""
    own = {"limits": limits, "express": express, "held_bytes": [0]}
    return cast(type[HttpToolsProtocol], type("Connection", (_Connection,), own))


class _Connection(HttpToolsProtocol):
    """A connection is at any time in the head of a request, in its body, or between two.

    While a body may be one for `Express`, the application is not called; when it turns out not to be, the request is
    started as uvicorn does, with the body that is there.
    """

    limits = Limits()
    express: Express | None = None
    held_bytes: ClassVar[list[int]] = [0]
    """Of all connections together; what goes beyond its share takes the way on which tokens are checked first."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head, self._in_body, self._last = True, False, False
        self._head = self._received = 0
        self._held: list[bytes] | None = None
        self._counted = 0
        self._patience: TimerHandle | None = None
        self._bound()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            text = f"{self.limits.connections} connections are open: ask again in 1 s"
            self._end(503, text, ((b"retry-after", b"1"),))
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        self._count(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._end(431, f"the request line and header lines are longer than {HEAD_BYTES} bytes")
            elif self._patience is None and self.timeout_keep_alive_task is None:
                seconds = min(HEAD_SECONDS, self.limits.body_seconds)
                self._patience = self.loop.call_later(seconds, self._late, "header lines", seconds)
        elif self._in_body:
            if self._received > self._most:
                self._end(413, f"more than {self._most} bytes came with one request: send fewer images at a time")
            elif self._patience is None:
                self._patience = self.loop.call_later(self._seconds, self._late, "body", self._seconds)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._received = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        # What follows a chunked body may hold header lines too, and no end of them.
        if len(self.headers) > _MOST_LINES:
            raise ValueError("too many header lines")

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._head = 0
        self._bound(upload=self.url.partition(b"?")[0].endswith(_UPLOADS))
        if self._patience is not None:
            self._calm()
        if length := self._short():
            self._held = []
            self._count(length)
        else:
            super().on_headers_complete()

    def _bound(self, *, upload: bool = False) -> None:
        # Files have bounds of their own, which the page keeps; these are only just above.
        most = uploads.MAX_UPLOAD_BYTES if upload else self.limits.body_bytes
        # Chunked encoding may double a body; headers and trailers come on top.
        self._most = 2 * most + 4 * HEAD_BYTES
        self._seconds = uploads.SECONDS + HEAD_SECONDS if upload else self.limits.body_seconds

    def on_body(self, body: bytes) -> None:
        if self._held is not None:
            self._held.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._patience is not None:
            self._calm()
        if self._held is None:
            super().on_message_complete()
            return
        held, self._held = self._held, None
        self._count(0)
        body = held[0] if len(held) == 1 else b"".join(held)
        keep_alive = self.parser.should_keep_alive() and not self._last
        self.scope["path"] = self.url.decode("ascii")
        assert self.express is not None  # noqa: S101
        answer = self.express.answer(self.url, cast(Any, self.scope), body, keep_alive)
        if answer is None:
            super().on_headers_complete()
            self.cycle.keep_alive = keep_alive
            self.cycle.body = cast(bytearray, body)  # as it is: uvicorn would copy it twice
            super().on_message_complete()
            return
        self.transport.write(answer)
        if keep_alive:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._end(400, "this is no valid HTTP request")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._calm()
        self._patience = self.loop.call_later(_READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._calm()
        super().resume_writing()

    def shutdown(self) -> None:
        self._last = True
        if self._held is None:  # else the request that is arriving is still answered
            super().shutdown()

    def _count(self, held: int) -> None:
        self.held_bytes[0] += held - self._counted
        self._counted = held

    def _short(self) -> int:
        """Return the length of a body that may be one for `Express`; else 0."""
        if (
            self.express is None
            or not self.express.takes(self.url)
            or self.expect_100_continue
            or self.flow.write_paused
            or not (self.cycle is None or self.cycle.response_complete)
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
        ):
            return 0
        text = next((value for name, value in self.headers if name == b"content-length"), b"")
        length = int(text) if text.isdigit() and len(text) < 8 else 0
        left = self.limits.total_bytes // _SHARE - self.held_bytes[0]
        return length if length <= min(MOST_BYTES, self.limits.body_bytes, left) else 0

    def _late(self, what: str, seconds: float) -> None:
        self._patience = None
        if self.transport.is_closing():
            return
        if self.pipeline:  # it waits for its turn, and is not read meanwhile
            self._patience = self.loop.call_later(seconds, self._late, what, seconds)
            return
        self._end(408, f"the {what} did not arrive within {seconds:g} s: send it faster, or less of it")

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _end(self, status: int, message: str, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True  # the application has nobody to answer any more
            self.cycle.message_event.set()
        counters = getattr(self.app, "metrics", None)
        if counters is not None:
            counters.request("other", status, 0.0)
        body = dump_json({"error": message})
        lines = [STATUS_LINE[status], b"content-type: application/json\r\n", b"content-length: %d\r\n" % len(body)]
        lines += [b"%s: %s\r\n" % pair for pair in (*PAGE_HEADERS, *more, (b"connection", b"close"))]
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        self.transport.close()
