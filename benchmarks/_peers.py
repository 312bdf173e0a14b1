"""Other people's model servers, each in an environment of its own, and how one asks them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from deploy.serving.protocol import HEADER, decode_response, encode_request

Array = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "peers"


class Missing(Exception):
    """A peer that cannot be had on this machine, and why."""


@dataclass(frozen=True)
class Dialect:
    """How a server is asked: its path, headers and bytes of an image (1, 1, n, n), and what its answer says."""

    path: str
    encode: Callable[[Array], tuple[bytes, dict[str, str]]]
    decode: Callable[[bytes, dict[str, str]], Array]


def _json(name: str, answer: Callable[[Any], Any]) -> tuple[Any, Any]:
    def encode(image: Array) -> tuple[bytes, dict[str, str]]:
        return json.dumps({name: image.tolist()}).encode(), {"Content-Type": "application/json"}

    return encode, lambda body, headers: np.array(answer(json.loads(body)), np.float32)


def _v2_binary(image: Array) -> tuple[bytes, dict[str, str]]:
    body, length = encode_request(image, ["prediction"])
    return body, {"Content-Type": "application/octet-stream", HEADER: str(length)}


def _v2(body: bytes, headers: dict[str, str]) -> Array:
    return decode_response(body, headers.get(HEADER.lower()))[0]["prediction"]


def _v2_json(image: Array) -> tuple[bytes, dict[str, str]]:
    return encode_request(image, ["prediction"], binary=False)[0], {"Content-Type": "application/json"}


def _bytes(image: Array) -> tuple[bytes, dict[str, str]]:
    return image.tobytes(), {"Content-Type": "application/octet-stream"}


DIALECTS = {
    "ours_binary": Dialect("/v2/models/stm-hubbard/infer", _v2_binary, _v2),
    "ours_json": Dialect("/v2/models/stm-hubbard/infer", _v2_json, _v2),
    "mlflow": Dialect("/invocations", *_json("inputs", lambda value: value["predictions"]["prediction"]
                      if isinstance(value["predictions"], dict) else value["predictions"])),
    "bentoml": Dialect("/predict", *_json("image", lambda value: value)),
    "litserve": Dialect("/predict", *_json("image", lambda value: value["prediction"])),
    "fastapi": Dialect("/predict", _bytes, lambda body, headers: np.frombuffer(body, np.float32).reshape(1, -1)),
}  # fmt: skip


def environment(name: str) -> Path:
    """Return the Python of a peer's environment, made from its requirements where it is not there yet.

    Raises
    ------
    Missing
        When it cannot be installed.
    """
    needs = (PEERS / f"{name}.txt").read_text()
    folder = ROOT / "build" / "peers" / name
    python, made = folder / "bin" / "python", folder / "requirements.txt"
    if made.exists() and made.read_text() == needs:
        return python
    uv = shutil.which("uv") or next((str(path) for path in ROOT.glob(".venv/uv/bin/uv")), None)
    steps = (
        [[uv, "venv", "-q", "--clear", "--python", sys.executable, folder],
         [uv, "pip", "install", "-q", "--python", python, "-r", PEERS / f"{name}.txt"]]
        if uv
        else [[sys.executable, "-m", "venv", "--clear", folder],
              [python, "-m", "pip", "install", "-q", "-r", PEERS / f"{name}.txt"]]
    )  # fmt: skip
    for step in steps:
        done = subprocess.run(list(map(str, step)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"{name} could not be installed: {done.stderr.strip()[-300:]}")
    made.write_text(needs)
    return python


def command(name: str, model: Path, side: int, port: int, folder: Path) -> list[str]:
    """Return what starts a server of ``model`` on ``port``; ``folder`` is for what it needs written."""
    if name == "ours":
        options = ["--port", str(port), "--provider", "cpu", "--threads", "1", "--runs", "1"]
        return [sys.executable, "-m", "deploy.serving.cli", str(model), *options]
    if name == "mlflow":
        saved = folder / f"mlflow_{side}"
        if not saved.exists():
            make = [sys.executable, PEERS / "mlflow_model.py", saved, str(side)]
            subprocess.run(make, check=True, capture_output=True, env={**os.environ, "MODEL_FILE": str(model)})
        serve = ["models", "serve", "-m", str(saved), "-h", "127.0.0.1", "-p", str(port), "--env-manager", "local"]
        return [sys.executable, "-m", "mlflow", *serve]
    python = environment(name)
    if name == "bentoml":
        options = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(PEERS)]
        return [str(python), "-m", "bentoml", "serve", "bentoml_service:Peer", *options]
    return [str(python), str(PEERS / f"{name}_server.py"), str(port), str(side)]


@contextmanager
def serving(name: str, model: Path, side: int, folder: Path) -> Iterator[tuple[int, Tree]]:
    """Run a server until the block ends; yields its port and its tree of processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = (folder / f"{name}_{side}.log").open("w")
    started = subprocess.Popen(
        command(name, model, side, port, folder), cwd=folder, stdout=said, stderr=said, start_new_session=True,
        env={**os.environ, "MODEL_FILE": str(model), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
             "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder / "bento"),
             "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
    )  # fmt: skip
    try:
        yield port, Tree(started.pid)
    except Missing as missing:
        last = Path(said.name).read_text(errors="replace").strip()[-300:]
        raise Missing(f"{missing}; it said last: {last or 'nothing'}") from missing
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        said.close()


class Tree:
    """The processes of a server."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)

    def ended(self) -> bool:
        """Whether the first of them, which the others belong to, has."""
        return not self.root.is_running() or self.root.status() == psutil.STATUS_ZOMBIE

    def cpu_seconds(self) -> float:
        """User and system time of all of them, and of their ended children."""
        total = 0.0
        for process in [self.root, *self.root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total


def ask(port: int, tree: Tree, dialect: Dialect, image: Array, seconds: float) -> tuple[bytes, bytes, Array]:
    """Ask once, waiting so long for a server that starts: request and answer as bytes, and what the answer says."""
    body, headers = dialect.encode(image)
    lines = [f"POST {dialect.path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
    request = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body
    end = time.monotonic() + seconds
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", dialect.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            said = {name.lower(): value for name, value in answer.getheaders()}
            connection.close()
            if answer.status == 200:
                return request, content, dialect.decode(content, said)
            if answer.status < 500:
                raise Missing(f"it answered {answer.status}: {content[:300]!r}")
            error: Exception = Missing(f"it answered {answer.status}: {content[:300]!r}")
        except (OSError, http.client.HTTPException) as trouble:
            error = trouble
        if tree.ended():
            raise Missing("it ended before it answered")
        if time.monotonic() > end:
            raise Missing(f"it did not answer: {error}")
        time.sleep(0.3)
