"""One HTTP connection: uvicorn's, with bounds on header lines and on waiting, and a short way for short answers."""

from __future__ import annotations

import contextlib
import math
from asyncio import TimerHandle, Transport
from typing import Any, ClassVar, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from deploy.serving.express import MOST_BYTES, Express
from deploy.serving.limits import Limits
from deploy.serving.metrics import ENDED
from deploy.serving.page import upload as uploads
from deploy.serving.security import PAGE_HEADERS
from deploy.serving.strict_json import dump_json

__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "connection_class"]

HEAD_BYTES = 32 * 1024
"""Of the request line and the header lines together."""
HEAD_SECONDS = 10.0
"""For them to arrive, or as long as a body may take, whichever is less."""
_READ_SECONDS = 30.0
"""For a client to take the next bytes of an answer."""
_MOST_LINES = 256
_UPLOADS = b"/ask"
_BLANK = b"\r\n\r\n"
_SHARE = 4  # of the bytes of all bodies one part may be held before anything is checked


class _Known(NamedTuple):
    """What `Express` answered before: a request with the same head needs no parser."""

    head: bytes
    url: bytes
    scope: Any
    length: int
    """Of the body."""


def connection_class(limits: Limits, express: Express | None = None) -> type[HttpToolsProtocol]:
    """Return the class of connections to a server with these limits."""
    own = {"limits": limits, "express": express, "held_bytes": [0]}
    return cast(type[HttpToolsProtocol], type("Connection", (_Connection,), own))


class _Connection(HttpToolsProtocol):
    """A connection is at any time in the head of a request, in its body, or between two.

    While a body may be one for `Express`, the application is not called; when it turns out not to be, the request is
    started as uvicorn does, with the body that is there. A head that is byte for byte the one that `Express` answered
    last is not parsed again.
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
        self._known: _Known | None = None
        self._parts: list[bytes] = []  # of a request whose head is known
        self._fresh = self._first = self._raw = b""  # a read that starts with a request, that of this one, its head
        self._began = self._ended = False  # in this read
        self._used = -math.inf  # by `_repeat`
        self._patience: TimerHandle | None = None
        self._unread: TimerHandle | None = None
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
        if self._unread is not None:
            self._unread.cancel()
        self._count(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        known = self._known
        if known is not None and (self._parts or (data.startswith(known.head) and self._free())):
            data = self._repeat(known, data)
            if not data:
                return
        self._fresh = b"" if self._in_body or self._head else data
        self._began = self._ended = False
        self._received += len(data)
        self._parse(data)
        self._fresh = b""
        if self.transport.is_closing():
            return
        if self._in_head:
            # Of a read in which another request ended, nobody knows how much is this one's.
            self._head += 0 if self._ended else len(data)
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
        elif self._idle() and self.timeout_keep_alive_task is None:
            # What came was of no request, and uvicorn has stopped the clock.
            seconds = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _parse(self, data: bytes) -> None:
        """Give the parser what uvicorn would; a request that asks for another protocol is answered in this one.

        Its parser takes what follows such a head for that protocol's: the body would be lost, or be run as a request.
        """
        self._unset_keepalive_if_required()
        left = memoryview(data)
        try:
            while True:
                try:
                    self.parser.feed_data(left)
                    return
                except HttpParserUpgrade as upgrade:
                    left = left[upgrade.args[0] :]
                self._fresh = self._first
                head = self._head_without_upgrade()
                self.parser = HttpRequestParser(self)
                with contextlib.suppress(AttributeError):  # as uvicorn does; httptools before 0.6.3 needs it not
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
        except HttpParserError:
            self.send_400_response("")

    def _head_without_upgrade(self) -> bytes:
        """Return the head that was just read, without the header that a server may ignore (RFC 9110, 7.8)."""
        lines = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        version = self.parser.get_http_version().encode()
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, b"".join(lines))

    def _idle(self) -> bool:
        return not (self._in_head or self._in_body) and (self.cycle is None or self.cycle.response_complete)

    def _free(self) -> bool:
        """Tell whether an answer may be written at once."""
        return self._idle() and not self.flow.write_paused

    def _repeat(self, known: _Known, data: bytes) -> bytes:
        """Collect and answer a request with a known head; return what has to be parsed after all."""
        self._parts.append(data)
        missing = len(known.head) + known.length - sum(map(len, self._parts))
        if missing > 0 and known.length <= self._room():
            if self._patience is None:
                self._unset_keepalive_if_required()
                self._count(known.length)
                self._patience = self.loop.call_later(self._seconds, self._late, "body", self._seconds)
            return b""
        parts, self._parts = self._parts, []
        self._count(0)
        if self._patience is not None:
            self._calm()
        if missing == 0:
            body = b"".join((memoryview(parts[0])[len(known.head) :], *parts[1:]))  # copied once
            if self._express(known.url, known.scope, body, not self._last):
                return b""
        return b"".join(parts)

    def _express(self, url: bytes, scope: Any, body: bytes, keep_alive: bool) -> bool:
        """Answer at once if `Express` does."""
        assert self.express is not None  # noqa: S101
        answer = self.express.answer(url, scope, body, keep_alive)
        if answer is None:
            return False
        text, keep_alive = answer
        self.transport.write(text)
        if not keep_alive:
            self.server_state.total_requests += 1
            self.transport.close()
        elif self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._used = self.loop.time()
        return True

    def timeout_keep_alive_handler(self) -> None:
        left = self._used + self.timeout_keep_alive - self.loop.time()
        if left > 0:  # a known head lets the clock run on
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        self._in_head = self._began = True
        self._received = 0
        self._first, self._fresh = self._fresh, b""
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        # What follows a chunked body may hold header lines too, and no end of them.
        if len(self.headers) > _MOST_LINES:
            raise ValueError("too many header lines")

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy, and what follows is no request")
            return  # `_parse` gives it once more
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
            if not self._held:
                self._raw = self._first[: -len(body)] if self._began else self._first
                self._first = b""
            self._held.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body, self._ended = False, True
        if self._patience is not None:
            self._calm()
        if self._held is None:
            self._first = b""
            super().on_message_complete()
            return
        held, self._held = self._held, None
        self._count(0)
        body = held[0] if len(held) == 1 else b"".join(held)
        keep_alive = self.parser.should_keep_alive() and not self._last
        self.scope["path"] = self.url.decode("ascii")
        scope, raw, self._raw = cast(Any, self.scope), self._raw, b""
        if self._express(self.url, scope, body, keep_alive):
            # Nothing else where other requests came in the same read.
            if len(raw) <= HEAD_BYTES and raw.endswith(_BLANK) and raw.index(_BLANK) == len(raw) - len(_BLANK):
                self._known = _Known(raw, self.url, scope, len(body))
            return
        super().on_headers_complete()
        self.cycle.keep_alive = keep_alive
        self.cycle.body = cast(bytearray, body)  # as it is: uvicorn would copy it twice
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(400, "this is no valid HTTP request")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _look_again(self) -> None:
        self._unread = self.loop.call_later(_READ_SECONDS, self._look, self.transport.get_write_buffer_size())

    def _look(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._look_again()
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        self._last = True
        if self._held is None and not self._parts:  # else the request that is arriving is still answered
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
        return length if length <= self._room() else 0

    def _room(self) -> int:
        """Return how long a body may be that is held before anything is checked."""
        left = self.limits.total_bytes // _SHARE - self.held_bytes[0] + self._counted
        return min(MOST_BYTES, self.limits.body_bytes, left)

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
        # The application counts what it was given, and else nobody has.
        given = self.cycle is not None and self._in_body and self._held is None and not self.pipeline
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True  # the application has nobody to answer any more
            self.cycle.message_event.set()
            if given:
                cast(Any, self.cycle.scope)[ENDED] = status
        counters = getattr(self.app, "metrics", None)
        if counters is not None and not given:
            counters.request("other", status)
        body = dump_json({"error": message})
        lines = [STATUS_LINE[status], b"content-type: application/json\r\n", b"content-length: %d\r\n" % len(body)]
        lines += [b"%s: %s\r\n" % pair for pair in (*PAGE_HEADERS, *more, (b"connection", b"close"))]
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        self.transport.close()
