"""A proxy before a real server that does to requests what bad networks do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("refuse", "lose reply", "reset upload", "late")


class FaultProxy:
    """Listens on a port of its own until the block ends.

    Parameters
    ----------
    upstream : str
        Address of the real server.
    choose : callable (method, path) -> str or None
        What happens to a request: ``refuse`` (answered 500, the server never sees it), ``lose reply`` (the server acts,
        the connection is reset before its answer), ``reset upload`` (reset in the middle of the body, on both sides),
        ``late`` (answered after ``delay`` s).
    """

    authorised = None  # header that every request must have

    def __init__(self, upstream, choose, delay=0.5):
        self.choose, self.delay, self.counts = choose, delay, Counter()
        place, proxy = urlsplit(upstream), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                """Say nothing."""

            def _do(self):
                fault = proxy.choose(self.command, self.path) if self.path != "/health" else None
                proxy.counts[fault or "passed"] += 1
                length = int(self.headers.get("Content-Length") or 0)
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = self._chunks()
                else:
                    body = self.rfile.read(length // 2 if fault == "reset upload" else length)
                if proxy.authorised not in (None, self.headers.get("Authorization")):
                    return self._answer(401, b"You are not authenticated.", "text/plain")
                if fault == "refuse":
                    return self._answer(500, b'{"error_code": "INTERNAL_ERROR", "message": "refused on purpose"}')
                if fault == "late":
                    time.sleep(proxy.delay)
                connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
                headers = {key: value for key, value in self.headers.items() if key.lower() != "transfer-encoding"}
                try:
                    if fault == "reset upload":
                        headers["Content-Length"] = str(max(length, 1))
                        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                        for key, value in headers.items():
                            connection.putheader(key, value)
                        connection.endheaders(body)
                        return self._reset(connection.sock)
                    connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
                    answer = connection.getresponse()
                    content = answer.read()
                    if fault == "lose reply":
                        return self._reset()
                    self._answer(answer.status, content, answer.headers.get("Content-Type", ""))
                except OSError:
                    self._reset()
                finally:
                    connection.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

            def _chunks(self):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _answer(self, status, content, kind="application/json"):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _reset(self, *others):
                self.close_connection = True
                for each in (self.connection, *others):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    each.close()

            def handle(self):
                try:
                    super().handle()
                except (OSError, ValueError):
                    self.close_connection = True

            def finish(self):
                try:
                    super().finish()
                except (OSError, ValueError):
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
