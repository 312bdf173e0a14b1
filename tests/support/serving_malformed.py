"""Requests that are wrong in one way or many, as the bytes that a client sends."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np

from deploy.serving.protocol import HEADER

TOKEN = "a-long-random-word"
SHAPE = (2, 4, 5)


def malformed(draw):
    """Return one malformed request."""
    return draw.choice((_tensor, _tensor, _tensor, _tensor, _values, _bytes, _words, _guards, _http))(draw)


def request(draw, rows=None):
    image = np.random.default_rng(draw.randrange(2**32)).normal(size=(rows or draw.randint(1, 3), *SHAPE)).astype("<f4")
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(image.shape),
        "parameters": {"binary_data_size": image.nbytes},
    }
    names = draw.sample(["prediction", "gradient", "distance"], draw.randint(1, 3))
    return {"inputs": [tensor], "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in names]}, image


def message(head, image, draw, **changes):
    text = changes.get("text", json.dumps(head).encode() if not isinstance(head, bytes) else head)
    tail = changes.get("tail", image.tobytes() if image is not None else b"")
    path = changes.get("path") or draw.choice(
        ["/v2/models/toy/infer", "/v2/models/toy/infer", "/v2/models/toy/explain"]
    )
    fields = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {TOKEN}",
        HEADER: str(len(text)),
        "Content-Length": str(len(text) + len(tail)),
        "Connection": "close",
    }
    fields |= changes.get("fields", {})
    lines = [f"{changes.get('method', 'POST')} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + text + tail


def _odd(draw):
    """Any JSON value, odd ones mostly."""
    return draw.choice(
        [
            None,
            True,
            False,
            0,
            -1,
            1.5,
            2**31,
            2**63,
            10**300,
            -(10**40),
            1e308,
            "",
            "FP32",
            "image",
            "../../etc/passwd",
            "x" * 5000,
            "\x00\r\nSet-Cookie: a=b",
            "\ud83d\ude00",
            [],
            [[]],
            {},
            [None],
            [1, "a"],
            {"name": "image"},
            [[1.0], [2.0, 3.0]],
            list(range(200)),
            {"a": {"b": {"c": []}}},
            ["prediction"] * 3,
            "INT64",
            [2**60, 2, 4, 5],
            [1, 2, 4, 5],
            [-1, 2, 4, 5],
            [1, 2, 4, 5, 1],
            [8, 2, 4, 5],
            [9, 2, 4, 5],
            160,
            159,
            "160",
        ]
    )


def _tensor(draw):
    """A binary request with one to three things wrong in its JSON or its bytes."""
    head, image = request(draw)
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
                    ["-1", "0", "1", "99999999", "1e2", "", "0x10", "9" * 30, " 5 ", "+7", "\xb2", None]
                )
            case 7 if isinstance(tensor, dict):
                tensor["datatype"] = draw.choice(["FP16", "FP64", "INT64", "INT8", "BOOL", "BYTES", "BF16", "fp32"])
            case 8:
                focus = {"name": "focus", "datatype": draw.choice(["INT64", "INT32", "FP32"]), "shape": _odd(draw)}
                focus |= draw.choice([{"data": _odd(draw)}, {"parameters": {"binary_data_size": _odd(draw)}}])
                head["inputs"] = [*head["inputs"], focus] if isinstance(head.get("inputs"), list) else [focus]
            case _ if isinstance(head.get("inputs"), list):
                head["inputs"] = head["inputs"] * draw.choice([0, 2, 3])
    return message(head, image, draw, tail=tail, fields=fields)


def _values(draw):
    """Numbers that are none: NaN, infinity, and those that are too large, binary and as text."""
    head, image = request(draw)
    image.ravel()[draw.randrange(image.size)] = draw.choice([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38])
    if draw.random() < 0.5:
        return message(head, image, draw)
    number = draw.choice(
        [
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"1e999",
            b"9" * 400,
            b"9" * 5000,
            b"1." + b"0" * 3000 + b"1",
            b'"1"',
            b"null",
            b"true",
            b"0x1",
            b"01",
            b"1e",
            b"--1",
            b"[1]",
            b"{}",
        ]
    )
    data = [b"0.5"] * image.size
    data[draw.randrange(len(data))] = number
    tensor = b'{"name":"image","datatype":"FP32","shape":%s,"data":[%s]}' % (
        json.dumps(list(image.shape)).encode(),
        b",".join(data),
    )
    if draw.random() < 0.2:
        text = b'{"inputs":[%s]}' % b",".join(data)
        return message(text, None, draw, path="/invocations", fields={HEADER: None})
    return message(b'{"inputs":[%s]}' % tensor, None, draw, fields={HEADER: None})


def _bytes(draw):
    """A proper request with some bytes of its body changed, removed or put in."""
    head, image = request(draw)
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
    return message(bytes(text), image, draw, tail=tail)


def _words(draw):
    """JSON that is deep, long, doubled, or no object at all."""
    text = draw.choice(
        [
            b"[" * draw.choice([10, 1000, 200_000]),
            b'{"a":' * draw.choice([10, 1000, 100_000]),
            b"",
            b"null",
            b"1",
            b'"a"',
            b"[1]",
            b"{",
            b"}",
            b'{"inputs":1,"inputs":2}',
            b"\xef\xbb\xbf{}",
            b'{"\\u0000":1}',
            b'{"inputs":[' + b"{}," * 9999,
            b'{"inputs": "' + b"a" * 500_000 + b'"}',
            b"{" + b" " * 500_000,
            b'{"inputs":[' + b"[" * 190 + b"]" * 190 + b"]}",
            b'{"inputs":' + b"[0," * 5000 + b"0" + b"]" * 5000 + b"}",
            b'{"instances":[{"image":[1]}]}',
            b'{"inputs":{"image":{}}}',
            b'{"dataframe_split":{"data":[]}}',
            b'{"instances":[[[[1]]],[[[1,2]]]]}',
            base64.b64encode(draw.randbytes(3000)),
        ]
    )
    path = draw.choice(["/v2/models/toy/infer", "/v2/models/toy/explain", "/invocations"])
    return message(text, None, draw, path=path, fields={HEADER: draw.choice([None, None, str(len(text))])})


def _guards(draw):
    """What must not reach the application."""
    head, image = request(draw)
    wrong = draw.choice(
        [
            {
                "Authorization": draw.choice(
                    [
                        None,
                        "Bearer",
                        "Bearer x",
                        f"bearer {TOKEN}",
                        f"Bearer {TOKEN}x",
                        "Basic YTpi",
                        f"Bearer {TOKEN[:-1]}",
                        "Bearer \xe9\xff",
                        "Bearer " + "x" * 9000,
                    ]
                )
            },
            {"Host": draw.choice([None, "evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil", "\xff"])},
            {"Origin": draw.choice(["http://evil.example", "null", "http://[", "\xff", "http://127.0.0.1:1"])},
            {"Content-Encoding": draw.choice(["gzip", "br", "deflate", "zstd", "gzip, gzip", "x" * 100])},
            {"Content-Length": draw.choice(["99999999999", "1" + "0" * 18, "2000000"])},
        ]
    )
    path = draw.choice([None, "/v2/models/toy", "/metrics", "/v2", "/openapi.json"])
    if draw.random() < 0.3:
        wrong = {}
        path = draw.choice(
            [
                "/v2/models/../../etc/passwd",
                "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd/infer",
                "/v2/models/toy%00/infer",
                "/v2/models/" + "a" * 2000,
                "/v2/models/toy/versions/99/infer",
                "/v2/models/toy/versions/%0d%0aX:%20y",
                "//",
                "/v2/models/toy/infer/",
                "/%ff%fe",
                "/v2/models//infer",
                "/V2",
                "/page/%2e%2e/app.py",
                "/page/examples/99999",
                "/v2/models/toy/ask?suffix=%2e%2e",
                "/v2/models/TOY/infer",
                "/v2/models/toy/unknown",
                "*",
                "/\xe9",
            ]
        )
    method = draw.choice(["POST", "POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
    return message(head, image, draw, path=path, method=method, fields=wrong)


def _http(draw):
    """What is hardly HTTP."""
    host = b"Host: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    post = b"POST /v2/models/toy/infer HTTP/1.1\r\n" + host
    chunk = struct.pack(">I", draw.randrange(2**32)).hex().encode()
    return draw.choice(
        [
            draw.randbytes(draw.randint(1, 400)),
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"\r\n" * 200,
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + draw.randbytes(200),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            post + b"Content-Length: -5\r\n\r\n{}",
            post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
            post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            post + b"Transfer-Encoding: gzip\r\n\r\n{}",
            post + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n{}\r\n0\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 600 + b"\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 2000 + b"0\r\n\r\n",
            post + b"X: " + b"a" * draw.choice([1000, 40_000, 400_000]) + b"\r\nContent-Length: 2\r\n\r\n{}",
            post + b"A: b\r\n" * draw.choice([100, 300, 20_000]) + b"Content-Length: 2\r\n\r\n{}",
            post + b"Bad Header: 1\r\n\r\n",
            post + b"A\x00: 1\r\n\r\n",
            post + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
            b"GET /" + b"a" * draw.choice([1000, 50_000]) + b" HTTP/1.1\r\n" + host + b"\r\n",
            post + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n" + host + b"\r\n",
        ]
    )
