"""Asking a server over HTTP as plainly as can be."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from urllib.parse import urlsplit

import numpy as np

from deploy.serving.protocol import encode_request

BODY, LENGTH = encode_request(np.ones((1, 2, 4, 5), np.float32), ["prediction"])
"""A request for the prediction of one image of the toy model, and the length of its JSON part."""
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n"


def ask(url, method, path, body=None, headers=None, context=None):
    """Return status, body and headers."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = context or ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(parts.netloc, timeout=120, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def raw(url, *parts, pause=0.0):
    """Send bytes as they are until the server closes; return all that it sent."""
    import time

    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def error_of(answer):
    """Status and message of a raw answer that is an error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), json.loads(body)["error"]


def counted(url, name, headers=None, **labels):
    """Value of one series of /metrics, 0 where it is not there."""
    text = ask(url, "GET", "/metrics", headers=headers)[1].decode()
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and labels == dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")):
            return float(found[2])
    return 0.0
