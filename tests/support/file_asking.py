"""Asking a server about a file, as its page does."""

import io
import json
from urllib.parse import urlencode

import numpy as np

from deploy.model.session import Session
from support.http_asking import ask as request

CONTENT = {"Content-Type": "application/octet-stream"}


def numbers(toy, folder):
    """A model that answers to an FT-LDOS image (2, 4, 5) with numbers."""
    ft = {"kind": "ft_ldos", "channels": 2, "height": 4, "width": 5, "unit": "1", "kx_max": 1.5, "ky_max": 2.0,
          "energies": [0.0, 0.1], "energy_tolerance": 0.03, "envelope": 0.4, "radius": 8.0}  # fmt: skip
    path = toy.write(folder / "n.onnx", change={"task": "hubbard", "input": ft})
    return Session(path, provider="cpu", threads=1)


def ask(url, content, model="numbers", headers=CONTENT, **options):
    """Return status and answer of a question about a file."""
    query = urlencode({"suffix": ".npy", **options})
    status, body, back = request(url, "POST", f"/v2/models/{model}/ask?{query}", content, headers)
    assert back["content-type"] == "application/json"
    return status, json.loads(body)


def npy(array):
    """An array as the bytes of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
