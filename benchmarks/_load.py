"""A load generator for any HTTP server: connections kept alive, each asking again as soon as it is answered.

Runs as a process of its own, ``_load.py PORT CONNECTIONS SECONDS FOLDER``: the folder has files N.request (all bytes
of a request) and N.answer (the body that must come back). Prints one JSON object.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from pathlib import Path

LENGTH = re.compile(rb"content-length: *(\d+)", re.I)


class Connection:
    """One connection and the question it waits for."""

    def __init__(self, port: int, number: int, pairs: list[tuple[bytes, bytes]]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.pairs, self.next = pairs, number
        self.got = bytearray()
        self.times: list[float] = []
        self.wrong = 0

    def begin(self) -> None:
        """Ask the next question."""
        request, self.expected = self.pairs[self.next % len(self.pairs)]
        self.next += 1
        self.left = memoryview(request)
        self.got.clear()
        self.begun = time.perf_counter()
        self.write()

    def write(self) -> None:
        """Send what the socket takes."""
        try:
            self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            return

    def read(self) -> bool:
        """Take what has come; tell whether the answer is whole."""
        part = self.socket.recv(2**18)
        if not part:
            raise ConnectionError("the server closed a connection")
        self.got += part
        head = self.got.find(b"\r\n\r\n")
        if head < 0:
            return False
        body, found = self.got[head + 4 :], LENGTH.search(self.got, 0, head)
        if found is None:  # chunked
            if not body.endswith(b"0\r\n\r\n"):
                return False
            body = unchunked(bytes(body))
        elif len(body) < int(found[1]):
            return False
        self.times.append(time.perf_counter() - self.begun)
        self.wrong += self.got[9:12] != b"200" or body != self.expected
        return True


def unchunked(body: bytes) -> bytes:
    """Undo chunked transfer."""
    whole, position = b"", 0
    while True:
        end = body.index(b"\r\n", position)
        size = int(body[position:end], 16)
        if not size:
            return whole
        whole += body[end + 2 : end + 2 + size]
        position = end + 4 + size


def run(port: int, connections: int, seconds: float, pairs: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """Ask for so many seconds and let every question begun be answered."""
    selector = selectors.DefaultSelector()
    alive = [Connection(port, number, pairs) for number in range(connections)]
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    begun = time.perf_counter()
    for one in alive:
        one.begin()
        selector.register(one.socket, both if one.left else selectors.EVENT_READ, one)
    end, waiting = begun + seconds, len(alive)
    while waiting:
        events = selector.select(60)
        if not events:
            raise TimeoutError("no answer within 60 s")
        for key, mask in events:
            one = key.data
            if mask & selectors.EVENT_WRITE:
                one.write()
                if not one.left:
                    selector.modify(one.socket, selectors.EVENT_READ, one)
            if mask & selectors.EVENT_READ and one.read():
                if time.perf_counter() >= end:
                    selector.unregister(one.socket)
                    waiting -= 1
                    continue
                one.begin()
                if one.left:
                    selector.modify(one.socket, both, one)
    spent = time.perf_counter() - begun
    times = sorted(value for one in alive for value in one.times)
    return {
        "requests": len(times), "wrong": sum(one.wrong for one in alive), "seconds": spent,
        "p50_ms": 1000 * times[len(times) // 2], "p99_ms": 1000 * times[min(int(0.99 * len(times)), len(times) - 1)],
    }  # fmt: skip


def main() -> None:
    """Run as the command line says."""
    folder = Path(sys.argv[4])
    names = sorted(folder.glob("*.request"))
    pairs = [(name.read_bytes(), name.with_suffix(".answer").read_bytes()) for name in names]
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), pairs)))


if __name__ == "__main__":
    main()
