"""One HTTP connection: uvicorn's, with bounds on header lines, on waiting, and on how many there are."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from deploy.serving.limits import Limits
from deploy.serving.security import PAGE_HEADERS
from deploy.serving.strict_json import dump_json

__all__ = ["HEAD_BYTES", "HEAD_SECONDS", "connection_class"]

HEAD_BYTES = 32 * 1024
"""Of the request line and the header lines together."""
HEAD_SECONDS = 10.0
"""For them to arrive, and for a client to go on reading an answer."""


def connection_class(limits: Limits) -> type[HttpToolsProtocol]:
    """Return the class of connections to a server with these limits."""
    return cast(type[HttpToolsProtocol], type("Connection", (_Connection,), {"limits": limits}))


class _Connection(HttpToolsProtocol):
    limits = Limits()

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        self._head = self._received = 0
        self._patience: TimerHandle | None = None
        # Chunked encoding may double a body; headers and trailers come on top.
        self._most = 2 * self.limits.body_bytes + 4 * HEAD_BYTES

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._end(
                503, f"{self.limits.connections} connections are open: ask again in 1 s", ((b"retry-after", b"1"),)
            )
            return
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
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
            elif self._patience is None:
                self._patience = self.loop.call_later(HEAD_SECONDS, self._late)
        else:
            if self._received > self._most:
                self._end(413, f"more than {self._most} bytes came with one request: send fewer images at a time")
            if self._patience is not None:
                self._calm()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._received = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head = 0
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        # What follows a chunked body may hold header lines too, and no end of them.
        if len(self.headers) > 256:
            raise ValueError("too many header lines")

    def send_400_response(self, msg: str) -> None:
        self._end(400, "this is no valid HTTP request")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._patience is None:
            self._patience = self.loop.call_later(3 * HEAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._calm()
        super().resume_writing()

    def _late(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self._end(408, f"the header lines did not arrive within {HEAD_SECONDS:g} s")

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _end(self, status: int, message: str, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        body = dump_json({"error": message})
        lines = [STATUS_LINE[status], b"content-type: application/json\r\n", b"content-length: %d\r\n" % len(body)]
        lines += [b"%s: %s\r\n" % pair for pair in (*PAGE_HEADERS, *more, (b"connection", b"close"))]
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        self.transport.close()
