"""A real mlflow server that is killed, stopped, slow, and behind a bad network: everything arrives, and once."""

from __future__ import annotations

import base64
import random
import signal
import time
from collections import Counter

import pytest

from support import delivered, fault_proxy, mlflow_server
from tracking import datasets, rows, runs, sender, spool, store, syncing

PATIENCE = 240  # seconds; a busy machine takes long


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = mlflow_server.Server(tmp_path_factory.mktemp("faulty"))
    try:
        yield made.start()
    finally:
        made.kill()


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setenv("STM_SPOOL_KEEP", "1")
    monkeypatch.setenv("STM_SPOOL_WAIT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(sender, "_LAST", 2.0)


class Run:
    """A training that records, in steps."""

    def __init__(self, opened, tmp_path, name):
        self.tmp_path, self.blob, self.slowest = tmp_path, tmp_path / f"{name}.bin", 0.0
        self.blob.write_bytes(random.Random(name).randbytes(3_000_000))
        self._context = runs.start(opened, "faults", name)
        self.record = self._context.__enter__()
        self.record.config({"train": {"epochs": 3}, "name": name})

    def steps(self, first, last):
        for step in range(first, last):
            began = time.monotonic()
            self.record.metrics({"loss": 1 / (step + 1), "mae": step / 3}, step)
            self.slowest = max(self.slowest, time.monotonic() - began)

    def end(self):
        datasets.log(self.record, {"digest": "d" * 64, "samples": 3}, self.tmp_path / "x.zarr")
        self.record.artifact(self.blob, "bundle")
        self.record.json({"a": 1}, "fitted.json")
        self._context.__exit__(None, None, None)
        return self.record


def arrived(server, tmp_path):
    """Wait for every spool here, with ``stm sync`` for what this process gave up, and compare them all."""
    base, deadline = spool.root(), time.monotonic() + PATIENCE
    while list(base.glob("[0-9a-f]*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    opened = store.connect(server.uri)
    counts = Counter()
    for path in delivered.kept(base).values():
        counts += delivered.check(path, opened)
    assert not list(base.glob("[0-9a-f]*")), "not everything was sent"
    return counts


def test_killed_and_started_again(server, tmp_path):
    run = Run(store.recording(server.uri), tmp_path, "killed")
    run.steps(0, 500)
    server.kill()
    run.steps(500, 1500)
    run.end()
    Run(store.recording(server.uri), tmp_path, "begun meanwhile").end()
    server.start()
    counts = arrived(server, tmp_path)
    assert [counts[key] for key in ("runs", "metrics", "params", "files", "inputs")] == [2, 3000, 4, 6, 2]


def test_stopped_for_a_while(server, tmp_path):
    opened = store.recording(server.uri)
    run = Run(opened, tmp_path, "stopped")
    run.steps(0, 500)
    server.signal(signal.SIGSTOP)
    try:
        run.steps(500, 1000)
        # The server has its request when it goes on, and the same once more.
        late = Run(opened, tmp_path, "begun while it is")
        assert late.record.id.startswith("spool_")
        late.steps(0, 10)
        time.sleep(6)
    finally:
        server.signal(signal.SIGCONT)
    run.steps(1000, 1500)
    run.end()
    late.end()
    counts = arrived(server, tmp_path)
    assert (counts["runs"], counts["metrics"], counts["files"]) == (2, 3020, 6)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_bad_network(server, tmp_path, seed):
    draw = random.Random(seed)
    calm = False

    def choose(method, path):
        return draw.choice(fault_proxy.FAULTS) if not calm and draw.random() < 0.4 else None

    with fault_proxy.FaultProxy(server.uri, choose) as proxy:
        opened = store.recording(proxy.uri)
        run = Run(opened, tmp_path, f"bad network {seed}")
        for first in range(0, 1500, 100):
            run.steps(first, first + 100)
            time.sleep(0.3)
        run.end()
        deadline = time.monotonic() + 60
        while list(spool.root().glob("[0-9a-f]*")) and time.monotonic() < deadline:
            time.sleep(0.2)
        calm = True
        counts = arrived(server, tmp_path)
    assert (counts["runs"], counts["metrics"], counts["files"]) == (1, 3000, 3)
    assert sum(proxy.counts[fault] for fault in fault_proxy.FAULTS) >= 3, proxy.counts
    (run_id,) = rows.located(store.connect(server.uri), next(iter(delivered.kept(spool.root()))))
    assert runs.get(store.connect(server.uri), run_id).name == f"bad network {seed}"


@pytest.mark.parametrize("fault", ["lose reply", "reset upload", "refuse"])
def test_every_kind_of_call_fails_once(server, tmp_path, fault):
    """The first call of each kind fails, and mlflow's own client may not try again."""
    seen = set()

    def choose(method, path):
        kind = (method, path.partition("?")[0].rstrip("0123456789abcdef/"))
        if (
            "log-batch" in path
            or "create" in path
            or method in ("PUT", "PATCH")
            or "update" in path
            or "inputs" in path
        ):
            first = kind not in seen
            seen.add(kind)
            return fault if first else None
        return None

    with fault_proxy.FaultProxy(server.uri, choose) as proxy:
        opened = store.recording(proxy.uri)
        run = Run(opened, tmp_path, fault)
        run.steps(0, 300)
        run.end()
        counts = arrived(server, tmp_path)
    assert (counts["runs"], counts["metrics"], counts["files"]) == (1, 600, 3)
    assert proxy.counts[fault] >= 4, (proxy.counts, seen)


def test_wrong_credentials(server, tmp_path, monkeypatch):
    right = "Basic " + base64.b64encode(b"me:right").decode()

    class Guard(fault_proxy.FaultProxy):
        authorised = right

    with Guard(server.uri, lambda method, path: None) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        opened = store.recording(proxy.uri)
        assert "401" in opened.away or "UNAUTH" in opened.away.upper()
        run = Run(opened, tmp_path, "wrong credentials")
        run.steps(0, 200)
        assert run.end().id.startswith("spool_")
        (one,) = [each for each in sender._senders.values() if each.store.uri == proxy.uri]
        assert one.trouble
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "right")
        counts = arrived(server, tmp_path)
    assert (counts["runs"], counts["metrics"]) == (1, 400)


def test_a_killed_client(server, tmp_path, start_script):
    code = (
        "import os, sys\nfrom tracking import runs, store\n"
        "with runs.start(store.recording(sys.argv[1]), 'faults', 'killed client') as run:\n"
        "    for step in range(3000): run.metrics({'a': step / 7}, step)\n"
        "    run.json({'a': 1}, 'late.json')\n"
        "    os.kill(os.getpid(), 9)"
    )
    process = start_script(code, server.uri, folder=tmp_path)
    assert process.wait(PATIENCE) == -9
    (sent,) = syncing.sync([tmp_path / ".stm-spool"])
    assert sent.state == "sent"
    opened = store.connect(server.uri)
    assert runs.get(opened, sent.run_id).outcome == "killed"
    assert arrived(server, tmp_path)["metrics"] == 3000
