"""Malformed requests: from the server's own description, of binary tensors, and of HTTP itself.

Whatever comes, the server answers 200, a client error or a deliberate 503 within seconds; every error is JSON and names
what was wrong; the process lives on and its memory stays bounded.
"""

from __future__ import annotations

import json
import random
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import psutil

from deploy.serving.protocol import HEADER, decode_response
from support.serving_malformed import TOKEN, malformed, message, request
from support.serving_versions import serving, write_good

# What errors speak of: the field, or the part of HTTP that was wrong.
NAMES = re.compile(
    r"inputs|outputs?\b|image|focus|shape|datatype|\bdata\b|binary_data|parameters?|\bid\b|body|JSON|instances|"
    r"Inference-Header|token|Host|Origin|Content-Encoding|model|version|header|HTTP|Not Found|Method Not Allowed|"
    r"not a finite number|suffix|content-type|example"
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SLOW_SHARE = 0.004
SECONDS = 60.0


class Broken(AssertionError):
    """A request that was not answered as it must be."""


def fuzz(folder, count, seed=0, report=None, described=0.15):
    """Send ``count`` malformed requests, a share ``described`` of them by schemathesis; return counts by status."""
    model = write_good(folder, 1)
    token = folder / "token"
    token.write_text(TOKEN)
    options = ["--token-file", str(token), "--body-timeout", "1", "--max-body-mb", "1", "--max-rows", "8"]
    counts: dict[str, int] = {}
    with serving(folder / "1.onnx", *options, "--name", "toy", follow=False) as (process, url, log):
        asker = _Asker(url, model)
        watched = psutil.Process(process.pid)
        # What any server takes for its busiest moment is not growth.
        _batch(asker, range(min(count // 4, 2000)), seed + 10**6, counts, None)
        counts.clear()
        before = watched.memory_info().rss
        _described(url, int(described * count), seed, counts, report)
        # Some routes have nothing that could be varied, so that their share is not used up.
        _batch(asker, range(count - sum(counts.values())), seed, counts, report)
        assert process.poll() is None, log.read_text()
        grown = watched.memory_info().rss - before
        assert any(asker.good() for _ in range(5))  # a busy machine may once be too slow
        text = log.read_text()
    assert process.returncode == 0, text
    assert "Traceback" not in text, text
    assert sum(counts.values()) >= count, counts
    # Half as much again, and what the allocator may keep: a leak of a kilobyte a request would be more.
    assert grown <= max(0.5 * before, 64 * 2**20), f"memory grew by {grown / 2**20:.0f} MiB"
    return {
        "requests": sum(counts.values()),
        "memory_grown_mib": round(grown / 2**20, 1),
        **dict(sorted(counts.items())),
    }


def _batch(asker, numbers, seed, counts, report):
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for number, status in enumerate(
            pool.map(lambda number: asker.one(random.Random(seed * 10**7 + number)), numbers)
        ):
            counts[status] = counts.get(status, 0) + 1
            if report and number % 5000 == 4999:
                report(f"{time.monotonic() - began:5.0f} s: {number + 1} malformed requests, {counts}")


class _Asker:
    def __init__(self, url, model):
        parts = urlsplit(url)
        self.address, self.model = (parts.hostname, parts.port), model

    def good(self):
        """Ask properly; whether the answer is right."""
        draw = random.Random(0)
        head, image = request(draw)
        status, headers, body = self._exchange(message(head, image, draw, path="/v2/models/toy/infer"), draw)
        if status != 200:
            return False
        got, _ = decode_response(body, headers.get(HEADER.lower()))
        want = self.model.expected(image.astype(np.float32))
        asked = {output["name"] for output in head["outputs"]}
        return set(got) == asked and all(np.allclose(got[one], want[one], rtol=1e-3, atol=1e-3) for one in asked)

    def one(self, draw):
        """Send one malformed request; return its status as text."""
        data = malformed(draw)
        began = time.monotonic()
        try:
            status, headers, body = self._exchange(data, draw)
        except TimeoutError as error:
            raise Broken(f"no answer within {SECONDS} s to {data[:400]!r}") from error
        if status is None:
            return "closed"
        self.check(data, status, headers, body)
        if time.monotonic() - began > SECONDS:
            raise Broken(f"{time.monotonic() - began:.0f} s for {data[:400]!r}")
        return str(status)

    def check(self, data, status, headers, body):
        """Hold an answer against what is promised."""
        if status == 200:
            return
        if not (400 <= status < 500 or (status == 503 and "retry-after" in headers)):
            raise Broken(f"{status} {body[:300]!r} to {data[:400]!r}")
        if data.startswith(b"HEAD "):
            return
        try:
            value = json.loads(body)
        except ValueError as error:
            raise Broken(f"{status} without JSON: {body[:300]!r} to {data[:400]!r}") from error
        if not (isinstance(value, dict) and isinstance(value.get("error"), str) and len(value["error"]) < 1000):
            raise Broken(f"{status} {body[:300]!r} to {data[:400]!r}")
        if not NAMES.search(value["error"]) or "\n" in value["error"]:
            raise Broken(f"names no field: {value['error']!r} to {data[:400]!r}")

    def _exchange(self, data, draw):
        slow = draw.random() < SLOW_SHARE
        with socket.create_connection(self.address, timeout=SECONDS) as connection:
            try:
                if slow and len(data) > 10:
                    cut = draw.randrange(1, len(data))
                    connection.sendall(data[:cut])
                    match draw.randrange(3):
                        case 0:
                            time.sleep(0.05)
                            connection.sendall(data[cut:])
                        case 1:
                            connection.shutdown(socket.SHUT_WR)
                        case _:
                            pass  # nothing more comes
                else:
                    connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # answered already, and closed
            return _answer(connection, head=data.startswith(b"HEAD "))


def _answer(connection, head):
    """Read one answer: status, headers and body; Nones when the connection just ended."""
    data = b""
    try:
        while b"\r\n\r\n" not in data.removeprefix(_CONTINUE):
            part = connection.recv(65536)
            if not part:
                return None, {}, b""
            data += part
        top, _, body = data.removeprefix(_CONTINUE).partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = 0 if head else int(headers.get("content-length", 0))
        while len(body) < length and (part := connection.recv(65536)):
            body += part
    except (ConnectionResetError, BrokenPipeError):
        return None, {}, b""
    return int(lines[0].split()[1]), headers, body[:length]


def _described(url, count, seed, counts, report):
    """Let schemathesis make requests from the server's description, right ones and wrong ones."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from schemathesis.specs.openapi import checks as conformance

    headers = {"Authorization": f"Bearer {TOKEN}"}
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    checks = [
        schemathesis.checks.not_a_server_error, conformance.status_code_conformance,
        conformance.content_type_conformance, conformance.response_schema_conformance,
        conformance.response_headers_conformance,
    ]  # fmt: skip
    # Files are read by processes of their own, which have tests of their own.
    operations = [one for one in (found.ok() for found in schema.get_all_operations()) if not one.path.endswith("/ask")]
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for operation in operations:
        share = max(1, -(-count // (len(operations) * len(modes))))
        for mode in modes:
            quiet = settings(
                max_examples=share, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )  # fmt: skip

            @seeded(seed)
            @quiet
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case):
                response = case.call(headers=headers, timeout=SECONDS)
                counts[str(response.status_code)] = counts.get(str(response.status_code), 0) + 1
                case.validate_response(response, checks=checks)
                if response.status_code >= 400 and case.method != "HEAD":
                    error = response.json()["error"]
                    if not NAMES.search(error):
                        raise Broken(f"names no field: {error!r} to {case.method} {case.path}")

            try:
                send()
            except Exception as error:
                if "Unsatisfiable" not in type(error).__name__:
                    raise
        if report:
            report(f"described: {operation.method.upper()} {operation.path}, {counts}")
