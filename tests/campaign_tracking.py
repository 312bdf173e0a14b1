"""A training that is recorded through every fault of a real server: nothing lost, nothing twice, no time lost either.

The training alternates blocks of the same work that record nothing and that record their metrics; their paired ratio of
wall time is what recording costs, whatever else the machine does. Beside it the share of CPU time that other threads of
the process took. Every spool is compared with the store value by value. Run by ``make campaign``, some 15 minutes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "tests"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
os.environ |= {"STM_SPOOL_KEEP": "1", "OMP_NUM_THREADS": "1", "STM_SPOOL_WAIT": "", "STM_SYSTEM_METRICS": "5"}

import delivered  # noqa: E402
import numpy as np  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from mlflow_server import Server  # noqa: E402

from tracking import datasets, runs, spool, store, syncing  # noqa: E402

LIMIT = 1.03
BLOCK = 0.1  # seconds of work, about


class Work:
    """Blocks of the same arithmetic."""

    def __init__(self):
        self.matrix = np.random.default_rng(0).random((300, 300))
        self.turns = 1
        while self._seconds() < BLOCK:
            self.turns *= 2

    def _seconds(self):
        began = time.perf_counter()
        self()
        return time.perf_counter() - began

    def __call__(self):
        for _ in range(self.turns):
            self.matrix @= self.matrix / self.matrix.sum(axis=0)


def train(opened, work, seconds, folder):
    """Train while something is done to the server; return run, the pairs' ratio, the others' CPU share, and steps."""
    ratios, step, blob = [], 0, folder / "blob.bin"
    blob.write_bytes(random.Random(0).randbytes(5_000_000))
    with runs.start(opened, "campaign", "training") as run:
        run.config({"train": {"epochs": 3}})
        datasets.log(run, {"digest": "d" * 64, "samples": 3}, folder / "x.zarr")
        began, cpu, own, files = time.monotonic(), time.process_time(), time.thread_time(), 0
        while time.monotonic() - began < seconds:
            times = {}
            for recorded in (False, True) if step % 2 else (True, False):
                start = time.perf_counter()
                work()
                if recorded:
                    run.metrics({"loss": 1 / (step + 1), "mae": step / 3, "rate": 1e-3}, step)
                times[recorded] = time.perf_counter() - start
            ratios.append(times[True] / times[False])
            step += 1
            if time.monotonic() - began > (files + 1) * seconds / 4:
                files += 1
                run.artifact(blob, f"bundle {files}")
        cpu, own = time.process_time() - cpu, time.thread_time() - own
    return run, statistics.median(ratios), (cpu - own) / cpu, step


@contextlib.contextmanager
def meanwhile(*acts):
    """Do ``acts``, pairs of seconds and a callable, beside the block, and all of them before it is left."""
    stop = threading.Event()

    def work():
        for seconds, act in acts:
            stop.wait(seconds)
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Campaign:
    """Every fault by name: a context in which the training runs, and the address that it is given."""

    def __init__(self, server, small, scale):
        self.server, self.small, self.scale = server, small, scale
        self.calm = False

    @contextlib.contextmanager
    def nothing(self):
        yield self.server.uri

    @contextlib.contextmanager
    def stopped_60_s(self):
        stop, go = (lambda: self.server.signal(signal.SIGSTOP)), (lambda: self.server.signal(signal.SIGCONT))
        with meanwhile((5, stop), (60 * self.scale, go)):
            yield self.server.uri

    @contextlib.contextmanager
    def killed_and_restarted(self):
        with meanwhile((5, self.server.kill), (10 * self.scale, self.server.start)):
            yield self.server.uri

    @contextlib.contextmanager
    def disk_full(self):
        ballast = self.small / "ballast"

        def fill():
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        with meanwhile((5, fill), (30 * self.scale, ballast.unlink)):
            yield self.server.uri

    @contextlib.contextmanager
    def _proxied(self, choose, delay=0.0):
        self.calm = False
        with FaultProxy(self.server.uri, lambda *call: None if self.calm else choose(*call), delay) as proxy:
            yield proxy.uri
            self.calm = True
            settled(proxy.uri)
            assert sum(count for name, count in proxy.counts.items() if name != "passed"), "nothing happened"

    def half_are_500(self):
        draw = random.Random(1)
        return self._proxied(lambda *_: "refuse" if draw.random() < 0.5 else None)

    def latency_10_s(self):
        return self._proxied(lambda *_: "late", 10 * self.scale)

    def reset_uploads(self):
        draw = random.Random(2)
        sending = ("PUT", "POST")
        return self._proxied(lambda how, _: "reset upload" if how in sending and draw.random() < 0.5 else None)

    def lost_replies(self):
        draw = random.Random(3)
        return self._proxied(lambda *_: "lose reply" if draw.random() < 0.5 else None)

    @contextlib.contextmanager
    def wrong_credentials(self):
        os.environ |= {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "wrong"}
        with FaultProxy(self.server.uri, lambda *_: None) as proxy:
            proxy.authorised = "Basic " + base64.b64encode(b"me:right").decode()
            yield proxy.uri
            os.environ["MLFLOW_TRACKING_PASSWORD"] = "right"
            settled(proxy.uri)
        del os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]

    @contextlib.contextmanager
    def never_there(self):
        yield "http://127.0.0.1:9"


FAULTS = (
    "nothing", "stopped_60_s", "killed_and_restarted", "disk_full", "half_are_500", "latency_10_s", "reset_uploads",
    "lost_replies", "wrong_credentials", "never_there",
)  # fmt: skip


def settled(uri, seconds=300):
    """Wait until no spool of this folder is left; return whether that is so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not list(spool.root().glob("[0-9a-f]*")):
            return True
        time.sleep(0.5)
    return False


def killed_client(server, folder, kills):
    """Kill a recording process again and again; everything that it recorded arrives by ``stm sync``."""
    code = (
        "import sys, time\nfrom tracking import runs, store\n"
        "with runs.start(store.recording(sys.argv[1]), 'campaign', 'killed') as run:\n"
        "    print('begun', flush=True)\n"
        "    for step in range(10**9):\n"
        "        run.metrics({'a': step / 7}, step)\n"
        "        if step % 500 == 0: run.json({'step': step}, f'files/{step}.json'); time.sleep(0.01)"
    )
    for number in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", code, server.uri], cwd=folder, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        process.stdout.readline()
        time.sleep(random.Random(number).uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    sent = list(syncing.sync([folder / ".stm-spool"]))
    assert [one.state for one in sent] == ["sent"] * kills, sent
    opened = store.connect(server.uri)
    kept = delivered.kept(folder / ".stm-spool").values()
    return sum((delivered.check(path, opened) for path in kept), start=delivered.Counter())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the faults' durations")
    parser.add_argument("--only", nargs="+", default=[*FAULTS, "killed_client"])
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        small = base / "server"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", small], check=False).returncode:
            print("a small file system cannot be mounted here: no full disk")
            options.only = [name for name in options.only if name != "disk_full"]
        else:
            stack.callback(subprocess.run, ["umount", "-l", small], check=False)
        server = Server(small)
        stack.callback(server.kill)
        server.start()
        campaign, work, failed = Campaign(server, small, options.scale), Work(), []
        for name in options.only:
            folder = base / name
            folder.mkdir()
            os.chdir(folder)
            row = {"fault": name}
            if name == "killed_client":
                row |= {"compared": killed_client(server, folder, 10)}
            else:
                with getattr(campaign, name)() as uri:
                    began = time.monotonic()
                    run, ratio, share, steps = train(store.recording(uri), work, 5 + 75 * options.scale, folder)
                    row |= {"seconds": round(time.monotonic() - began), "steps": steps, "ratio": round(ratio, 4)}
                    row |= {"others_cpu": round(share, 4), "run_id": run.id}
                    failed += [name] if ratio > LIMIT else []
                if name == "never_there":
                    for one in syncing_own(server):
                        assert one.state == "sent", one
                assert settled(uri), f"{name}: not everything was sent"
                opened = store.connect(server.uri)
                kept = delivered.kept(spool.root())
                assert len(kept) == 1
                row |= {"compared": delivered.check(*kept.values(), opened)}
            print(json.dumps(row), flush=True)
    assert not failed, f"more than {LIMIT - 1:.0%} of the training's time: {failed}"


def syncing_own(server):
    """Send what this process itself holds, as another one would."""
    from tracking.sender import _senders

    for one in _senders.values():
        for parcel in one.left():
            parcel.release()
            parcel.done = True
    return list(syncing.sync([spool.root()], server.uri))


if __name__ == "__main__":
    main()
