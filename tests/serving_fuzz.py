"""Malformed requests: from the server's own description, of binary tensors, and of HTTP itself.

Whatever comes, the server answers 200, a client error or a deliberate 503 within seconds; every error is JSON and names
what was wrong; the process lives on and its memory stays bounded.
"""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import psutil
from serving_versions import serving, write_good

from deploy.serving.protocol import HEADER, decode_response

TOKEN = "a-long-random-word"
SHAPE = (2, 4, 5)
# What errors speak of: the field, or the part of HTTP that was wrong.
NAMES = re.compile(
    r"inputs|outputs?\b|image|focus|shape|datatype|\bdata\b|binary_data|parameters?|\bid\b|body|JSON|instances|"
    r"Inference-Header|token|Host|Origin|Content-Encoding|model|version|header|HTTP|Not Found|Method Not Allowed|"
    r"not a finite number|suffix|content-type"
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SLOW_SHARE = 0.004
SECONDS = 20.0


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
        by_hand = count - int(described * count)
        _batch(asker, range(by_hand), seed, counts, report)
        _described(url, count - by_hand, seed, counts, report)
        assert process.poll() is None, log.read_text()
        grown = watched.memory_info().rss - before
        right, _, _ = asker.good()
        assert right
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
        head, image = _request(draw)
        status, headers, body = self._exchange(_message(head, image, draw), draw)
        got, _ = decode_response(body, headers.get(HEADER.lower()))
        want = self.model.expected(image.astype(np.float32))
        return status == 200 and all(np.allclose(got[n], want[n], rtol=1e-3, atol=1e-3) for n in got), status, body

    def one(self, draw):
        """Send one malformed request; return its status as text."""
        kinds = (_tensor, _tensor, _tensor, _tensor, _values, _bytes, _words, _guards, _http)
        data = draw.choice(kinds)(draw)
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


def _request(draw, rows=None):
    image = np.random.default_rng(draw.randrange(2**32)).normal(size=(rows or draw.randint(1, 3), *SHAPE)).astype("<f4")
    tensor = {"name": "image", "datatype": "FP32", "shape": list(image.shape),
              "parameters": {"binary_data_size": image.nbytes}}  # fmt: skip
    names = draw.sample(["prediction", "gradient", "distance"], draw.randint(1, 3))
    return {"inputs": [tensor], "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in names]}, image


def _message(head, image, draw, **changes):
    text = changes.get("text", json.dumps(head).encode() if not isinstance(head, bytes) else head)
    tail = changes.get("tail", image.tobytes() if image is not None else b"")
    path = changes.get("path") or draw.choice(
        ["/v2/models/toy/infer", "/v2/models/toy/infer", "/v2/models/toy/explain"]
    )
    fields = {"Host": "127.0.0.1", "Authorization": f"Bearer {TOKEN}", HEADER: str(len(text)),
              "Content-Length": str(len(text) + len(tail)), "Connection": "close"}  # fmt: skip
    fields |= changes.get("fields", {})
    lines = [f"{changes.get('method', 'POST')} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + text + tail


def _odd(draw):
    """Any JSON value, odd ones mostly."""
    return draw.choice([
        None, True, False, 0, -1, 1.5, 2**31, 2**63, 10**300, -(10**40), 1e308, "", "FP32", "image", "../../etc/passwd",
        "x" * 5000, "\x00\r\nSet-Cookie: a=b", "\ud83d\ude00", [], [[]], {}, [None], [1, "a"], {"name": "image"},
        [[1.0], [2.0, 3.0]], list(range(200)), {"a": {"b": {"c": []}}}, ["prediction"] * 3, "INT64", [2**60, 2, 4, 5],
        [1, 2, 4, 5], [-1, 2, 4, 5], [1, 2, 4, 5, 1], [8, 2, 4, 5], [9, 2, 4, 5], 160, 159, "160",
    ])  # fmt: skip


def _tensor(draw):
    """A binary request with one to three things wrong in its JSON or its bytes."""
    head, image = _request(draw)
    tail, fields = image.tobytes(), {}
    for _ in range(draw.randint(1, 3)):
        tensor = head["inputs"][0] if isinstance(head.get("inputs"), list) and head["inputs"] else {}
        match draw.randrange(10):
            case 0 if isinstance(tensor, dict):
                tensor[draw.choice(["name", "datatype", "shape", "data", "parameters", "other"])] = _odd(draw)
            case 1 if isinstance(tensor, dict):
                tensor["parameters"] = {"binary_data_size": _odd(draw)}
            case 2:
                head[draw.choice(["inputs", "outputs", "id", "parameters", "other"])] = _odd(draw)
            case 3:
                head["outputs"] = [{"name": _odd(draw), "parameters": draw.choice([{}, {"binary_data": _odd(draw)}])}]
            case 4:
                tail = tail[: draw.randrange(len(tail) + 1)]
            case 5:
                tail += draw.randbytes(draw.randint(1, 64))
            case 6:
                fields[HEADER] = draw.choice(
                    ["-1", "0", "1", "99999999", "1e2", "", "0x10", "9" * 30, " 5 ", "+7", None]
                )
            case 7 if isinstance(tensor, dict):
                tensor["datatype"] = draw.choice(["FP16", "FP64", "INT64", "INT8", "BOOL", "BYTES", "BF16", "fp32"])
            case 8:
                focus = {"name": "focus", "datatype": draw.choice(["INT64", "INT32", "FP32"]), "shape": _odd(draw)}
                focus |= draw.choice([{"data": _odd(draw)}, {"parameters": {"binary_data_size": _odd(draw)}}])
                head["inputs"] = [*head["inputs"], focus] if isinstance(head.get("inputs"), list) else [focus]
            case _ if isinstance(head.get("inputs"), list):
                head["inputs"] = head["inputs"] * draw.choice([0, 2, 3])
    return _message(head, image, draw, tail=tail, fields=fields)


def _values(draw):
    """Numbers that are none: NaN, infinity, and those that are too large, binary and as text."""
    head, image = _request(draw)
    image.ravel()[draw.randrange(image.size)] = draw.choice([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38])
    if draw.random() < 0.5:
        return _message(head, image, draw)
    number = draw.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 400, b"9" * 5000, b"1." + b"0" * 3000 + b"1",
                          b'"1"', b"null", b"true", b"0x1", b"01", b"1e", b"--1", b"[1]", b"{}"])  # fmt: skip
    data = [b"0.5"] * image.size
    data[draw.randrange(len(data))] = number
    tensor = b'{"name":"image","datatype":"FP32","shape":%s,"data":[%s]}' % (
        json.dumps(list(image.shape)).encode(), b",".join(data))  # fmt: skip
    if draw.random() < 0.2:
        text = b'{"inputs":[%s]}' % b",".join(data)
        return _message(text, None, draw, path="/invocations", fields={HEADER: None})
    return _message(b'{"inputs":[%s]}' % tensor, None, draw, fields={HEADER: None})


def _bytes(draw):
    """A proper request with some bytes of its body changed, removed or put in."""
    head, image = _request(draw)
    text, tail = bytearray(json.dumps(head).encode()), image.tobytes()
    for _ in range(draw.randint(1, 8)):
        place = draw.randrange(len(text))
        match draw.randrange(4):
            case 0:
                text[place] = draw.randrange(256)
            case 1:
                del text[place : place + draw.randint(1, 20)]
            case 2:
                text[place:place] = draw.randbytes(draw.randint(1, 20))
            case _:
                text[place:place] = draw.choice([b"[", b"{", b'"', b"\\u0000", b"\\ud800", b",", b"\xff", b"\x00"]) * 50
        if not text:
            text = bytearray(b"{")
    return _message(bytes(text), image, draw, tail=tail)


def _words(draw):
    """JSON that is deep, long, doubled, or no object at all."""
    text = draw.choice([
        b"[" * draw.choice([10, 1000, 200_000]), b'{"a":' * draw.choice([10, 1000, 100_000]), b"", b"null", b"1", b'"a"',
        b"[1]", b"{", b"}", b'{"inputs":1,"inputs":2}', b"\xef\xbb\xbf{}", b'{"\\u0000":1}', b'{"inputs":[' + b"{}," * 9999,
        b'{"inputs": "' + b"a" * 500_000 + b'"}', b"{" + b" " * 500_000, b'{"inputs":[' + b"[" * 190 + b"]" * 190 + b"]}",
        b'{"inputs":' + b"[0," * 5000 + b"0" + b"]" * 5000 + b"}", b'{"instances":[{"image":[1]}]}', b'{"inputs":{"image":{}}}',
        b'{"dataframe_split":{"data":[]}}', b'{"instances":[[[[1]]],[[[1,2]]]]}', base64.b64encode(draw.randbytes(3000)),
    ])  # fmt: skip
    path = draw.choice(["/v2/models/toy/infer", "/v2/models/toy/explain", "/invocations"])
    return _message(text, None, draw, path=path, fields={HEADER: draw.choice([None, None, str(len(text))])})


def _guards(draw):
    """What must not reach the application."""
    head, image = _request(draw)
    wrong = draw.choice([
        {"Authorization": draw.choice([None, "Bearer", "Bearer x", f"bearer {TOKEN}", f"Bearer {TOKEN}x", "Basic YTpi",
                                       f"Bearer {TOKEN[:-1]}", "Bearer \xe9\xff", "Bearer " + "x" * 9000])},
        {"Host": draw.choice([None, "evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil", "\xff"])},
        {"Origin": draw.choice(["http://evil.example", "null", "http://[", "\xff", "http://127.0.0.1:1"])},
        {"Content-Encoding": draw.choice(["gzip", "br", "deflate", "zstd", "gzip, gzip", "x" * 100])},
        {"Content-Length": draw.choice(["99999999999", "1" + "0" * 18, "2000000"])},
    ])  # fmt: skip
    path = draw.choice([None, "/v2/models/toy", "/metrics", "/v2", "/openapi.json"])
    if draw.random() < 0.3:
        wrong = {}
        path = draw.choice([
            "/v2/models/../../etc/passwd", "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd/infer", "/v2/models/toy%00/infer",
            "/v2/models/" + "a" * 2000, "/v2/models/toy/versions/99/infer", "/v2/models/toy/versions/%0d%0aX:%20y", "//",
            "/v2/models/toy/infer/", "/%ff%fe", "/v2/models//infer", "/V2", "/page/%2e%2e/app.py", "/page/examples/99999",
            "/v2/models/toy/ask?suffix=%2e%2e", "/v2/models/TOY/infer", "/v2/models/toy/unknown", "*", "/\xe9",
        ])  # fmt: skip
    method = draw.choice(["POST", "POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
    return _message(head, image, draw, path=path, method=method, fields=wrong)


def _http(draw):
    """What is hardly HTTP."""
    host = b"Host: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    post = b"POST /v2/models/toy/infer HTTP/1.1\r\n" + host
    chunk = struct.pack(">I", draw.randrange(2**32)).hex().encode()
    return draw.choice([
        draw.randbytes(draw.randint(1, 400)), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 200, b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(200), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        post + b"Content-Length: -5\r\n\r\n{}", post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
        post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", post + b"Transfer-Encoding: gzip\r\n\r\n{}",
        post + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n{}\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 600 + b"\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 2000 + b"0\r\n\r\n",
        post + b"X: " + b"a" * draw.choice([1000, 40_000, 400_000]) + b"\r\nContent-Length: 2\r\n\r\n{}",
        post + b"A: b\r\n" * draw.choice([100, 300, 20_000]) + b"Content-Length: 2\r\n\r\n{}",
        post + b"Bad Header: 1\r\n\r\n", post + b"A\x00: 1\r\n\r\n", post + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        b"GET /" + b"a" * draw.choice([1000, 50_000]) + b" HTTP/1.1\r\n" + host + b"\r\n",
        post + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n" + host + b"\r\n",
    ])  # fmt: skip


def _described(url, count, seed, counts, report):
    """Let schemathesis make requests from the server's description, right ones and wrong ones."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    headers = {"Authorization": f"Bearer {TOKEN}"}
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
    checks = [
        schemathesis.checks.not_a_server_error, schemathesis.specs.openapi.checks.status_code_conformance,
        schemathesis.specs.openapi.checks.content_type_conformance,
        schemathesis.specs.openapi.checks.response_schema_conformance,
        schemathesis.specs.openapi.checks.response_headers_conformance,
    ]  # fmt: skip
    operations = [found.ok() for found in schema.get_all_operations()]
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
