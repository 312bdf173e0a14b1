"""The benchmark of servers counts what it should: answers compared byte by byte, CPU time of every process, ratios."""

from __future__ import annotations

import contextlib
import importlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from deploy.model.session import Session

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in ("_load", "_peers", "_served", "serving")}
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def echo():
    """A server that sends a request's body back: whole, in chunks where asked to, with 500 where asked to."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(connection):
        with connection:
            stream = connection.makefile("rb")
            while head := stream.readline():
                length, how = 0, head.split()[1]
                while (line := stream.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = stream.read(length)
                if how == b"/chunks":
                    parts = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:3], body[3:]) if p)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n")
                else:
                    status = b"500 No" if how == b"/fail" else b"200 OK"
                    connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def accept():
        listener.settimeout(0.1)
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield listener.getsockname()[1]
    over.set()
    thread.join()
    listener.close()


def request(path, body):
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)


@pytest.mark.parametrize("path", [b"/", b"/chunks"])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_right_answers_of_any_size(modules, echo, path, size):
    pairs = [(request(path, body), body) for body in (b"a" * size, b"b" * (size + 1))]
    found = modules["_load"].run(echo, 4, 0.3, pairs)
    assert found["wrong"] == 0
    assert found["requests"] >= 4
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_wrong_answers_are_counted(modules, echo):
    pairs = [(request(b"/", b"right"), b"right"), (request(b"/", b"right"), b"wrong"), (request(b"/fail", b"x"), b"x")]
    found = modules["_load"].run(echo, 1, 0.3, pairs)
    assert found["requests"] / 2 < found["wrong"] + 2 < found["requests"] + 2
    assert found["wrong"] >= 2


def test_processor_time_is_of_all_processes(modules):
    code = "import subprocess, sys\nc = 'while 1: pass'\nsubprocess.run([sys.executable, '-c', c])"
    started = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        tree = modules["_peers"].Tree(started.pid)
        end = time.monotonic() + 60
        while tree.cpu_seconds() < 0.5 and time.monotonic() < end:
            time.sleep(0.05)
        own = tree.root.cpu_times()
        assert tree.cpu_seconds() >= 0.5 > own.user + own.system
    finally:
        for process in [*tree.root.children(recursive=True), tree.root]:
            process.kill()
        started.wait()


@pytest.mark.parametrize(("network", "side"), [("conv", 32), ("lattice", 96), ("timm:mobilenetv3_small_100", 32)])
def test_the_models_that_are_compared_can_be_served(modules, tmp_path, network, side):
    plain, full = modules["_served"].write_models(tmp_path, network, side)
    image = np.ones((1, 1, side, side), np.float32)
    for path, names in ((plain, ["prediction"]), (full, ["prediction", modules["_served"].METHODS[network]])):
        assert Session(path, provider="cpu", threads=1).run(image, names).keys() == set(names)
    (alone,) = modules["serving"].open_alone(plain).run(None, {"image": image})
    assert alone == pytest.approx(Session(full, provider="cpu").run(image, ["prediction"])["prediction"])


def test_a_server_that_ends_is_missing_with_its_last_words(modules, monkeypatch, tmp_path):
    peers = modules["_peers"]
    code = "import sys; sys.exit('no such model')"
    monkeypatch.setattr(peers, "command", lambda *_: [sys.executable, "-c", code])
    image = np.ones((1, 1, 16, 16), np.float32)
    begun = time.monotonic()
    with (
        pytest.raises(peers.Missing, match="it ended before it answered; it said last: no such model"),
        peers.serving("ours", tmp_path / "m.onnx", 16, tmp_path) as (port, tree),
    ):
        peers.ask(port, tree, peers.DIALECTS["ours_binary"], image, 600)
    assert time.monotonic() - begun < 60


def test_ratios(modules):
    def at(cpu):
        return {8: {"cpu_ms": cpu, "per_s": 1.0}}

    rounds = [
        {"raw": [{"cpu_ms": 1.0}, {"cpu_ms": 1.0}], "ours_binary": at(1.2), "mlflow": at(24.0)},
        {"raw": [{"cpu_ms": 2.0}, {"cpu_ms": 2.0}], "ours_binary": at(2.8), "mlflow": at(28.0)},
    ]
    found = modules["serving"].summary(rounds)
    assert found["ratios"] == pytest.approx({"mlflow": 15.0})  # within each round, then the median
    assert "bentoml" not in found["ratios"]  # what is missing is not made up


def test_onnxruntime_alone_is_measured_in_turns_with_the_server(modules, monkeypatch, tmp_path):
    serving, turns = modules["serving"], []

    def measured(side, cpu):
        turns.append(side)
        return {"cpu_ms": cpu * len(turns)}  # a machine that slows down

    monkeypatch.setattr(serving, "open_alone", lambda model: None)
    monkeypatch.setattr(serving, "raw", lambda *_: measured("alone", 2.0))
    monkeypatch.setattr(serving._peers, "serving", lambda *_: contextlib.nullcontext((1, None)))
    bench = serving.Bench(tmp_path, quick=True)
    monkeypatch.setattr(bench, "pairs", lambda *_: tmp_path)
    monkeypatch.setattr(bench, "load", lambda *_: measured("served", 3.0))
    found = bench.over_raw(tmp_path, np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 1), np.float32))
    assert turns == ["served", "alone", "served", "served", "alone"]  # the first warms up
    assert found == pytest.approx([1.5 * 3 / 2, 1.5 * 4 / 5])


def test_a_peer_that_cannot_be_installed_is_missing(modules, monkeypatch, tmp_path):
    peers = modules["_peers"]
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "none.txt").write_text("no-such-file.whl\n")
    monkeypatch.setattr(peers, "PEERS", tmp_path / "peers")
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    with pytest.raises(peers.Missing, match="none could not be installed"):
        peers.environment("none")
