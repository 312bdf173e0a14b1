"""A training that is recorded through every fault of a real server: nothing lost, nothing twice, no time lost either.

Two processes do the same work in turns; one of them records it. The median ratio of their wall times, in pairs, is what
recording costs, its own threads with it, whatever else the machine does: ``ratio``. Beside it ``whole``, the ratio of
all the time, with the files that are logged; ``cpu``, how much more of a processor all of it takes; ``threads``, what
of that the threads take which send. What the process leaves is sent by ``stm sync``; every spool is compared with the
store value by value. Run by ``make campaign``, some 20 minutes.
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
os.environ |= {"STM_SPOOL_KEEP": "1", "OMP_NUM_THREADS": "1", "STM_SPOOL_WAIT": "", "STM_SYSTEM_METRICS": "5"}

import numpy as np  # noqa: E402

from support import delivered  # noqa: E402
from support.fault_proxy import FaultProxy  # noqa: E402
from support.mlflow_server import Server  # noqa: E402
from tracking import datasets, runs, spool, store, syncing  # noqa: E402

LIMIT = 1.03
BLOCK = 0.02  # seconds of a processor, about


class Work:
    """Blocks of the same arithmetic.

    Parameters
    ----------
    turns : int, optional
        How long a block is; else as many as take `BLOCK` seconds.
    """

    def __init__(self, turns=1):
        self.matrix = np.random.default_rng(0).random((300, 300))
        self.turns = turns
        while turns == 1 and self._seconds() < BLOCK:
            self.turns *= 2

    def _seconds(self):
        began = time.process_time()
        self()
        return time.process_time() - began

    def __call__(self):
        for _ in range(self.turns):
            self.matrix @= self.matrix / self.matrix.sum(axis=0)


def blocks(work, run=None):
    """Do a block for every line that comes in, or log a file for ``file``; say how many seconds it took, then all."""
    blob, files, step = Path("blob.bin"), 0, 0
    if run is not None:
        blob.write_bytes(random.Random(0).randbytes(5_000_000))
    began, cpu, own = time.monotonic(), time.process_time(), time.thread_time()
    for line in sys.stdin:
        start = time.perf_counter()
        if line.strip() == "file":
            files += 1
            if run is not None:
                run.artifact(blob, f"bundle {files}")
        else:
            work()
            if run is not None:
                run.metrics({"loss": 1 / (step + 1), "mae": step / 3, "rate": 1e-3}, step)
            step += 1
        print(time.perf_counter() - start, flush=True)
    cpu, own = time.process_time() - cpu, time.thread_time() - own
    return {"cpu": cpu, "threads": (cpu - own) / (time.monotonic() - began)}


def child(turns, uri):
    """Be one of the two processes; one without ``uri`` records nothing."""
    work = Work(turns)
    if not uri:
        found = blocks(work)
    else:
        with runs.start(store.recording(uri), "campaign", "training") as run:
            run.config({"train": {"epochs": 3}})
            datasets.log(run, {"digest": "d" * 64, "samples": 3}, Path("x.zarr").absolute())
            found = blocks(work, run)
            ended = time.monotonic()
        found |= {"closing_s": time.monotonic() - ended, "run_id": run.id}
    print(json.dumps(found), flush=True)


class Training:
    """A process that trains, in the working directory."""

    def __init__(self, turns, uri=""):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", str(turns), uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self()

    def __call__(self, what=""):
        """Do one block, or log a file; return its seconds."""
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self):
        """Let it end; return what it says."""
        out, _ = self._process.communicate()
        assert self._process.returncode == 0
        return json.loads(out)


def train(uri, turns, seconds, begun):
    """Train twice, recorded and not, while something is done to the server; return a report of the time."""
    recorded, alone = Training(turns, uri), Training(turns)
    begun.set()
    pairs, filed, began, files = [], 0.0, time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        both = (recorded, alone) if len(pairs) % 2 else (alone, recorded)
        times = {each: each() for each in both}
        pairs.append((times[recorded], times[alone]))
        if passed > (files + 1) * seconds / 4:
            files += 1
            filed += recorded("file")
    own, other = recorded.close(), alone.close()
    found = {
        "ratio": statistics.median(one / two for one, two in pairs),
        "whole": (sum(one for one, _ in pairs) + filed) / sum(two for _, two in pairs),
        "cpu": (own["cpu"] - other["cpu"]) / seconds, "threads": own["threads"], "closing_s": own["closing_s"],
    }  # fmt: skip
    rounded = {name: round(value, 4) for name, value in found.items()}
    return {"steps": len(pairs), **rounded, "run_id": own["run_id"]}


@contextlib.contextmanager
def meanwhile(begun, *acts):
    """Do ``acts``, pairs of seconds and a callable, beside the block once ``begun`` is set; all before it is left."""
    stop = threading.Event()

    def work():
        begun.wait()
        for seconds, act in acts:
            stop.wait(seconds)
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        begun.set()
        thread.join()


class Campaign:
    """Every fault by name: a context in which the training runs, and the address that it is given."""

    def __init__(self, server, small, scale):
        self.server, self.small, self.scale = server, small, scale
        self.calm, self.begun = False, threading.Event()

    @contextlib.contextmanager
    def nothing(self):
        yield self.server.uri

    @contextlib.contextmanager
    def stopped_60_s(self):
        stop, go = (lambda: self.server.signal(signal.SIGSTOP)), (lambda: self.server.signal(signal.SIGCONT))
        with meanwhile(self.begun, (5, stop), (60 * self.scale, go)):
            yield self.server.uri

    @contextlib.contextmanager
    def killed_and_restarted(self):
        with meanwhile(self.begun, (5, self.server.kill), (10 * self.scale, self.server.start)):
            yield self.server.uri

    @contextlib.contextmanager
    def disk_full(self):
        ballast = self.small / "ballast"

        def fill():
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        with meanwhile(self.begun, (5, fill), (30 * self.scale, ballast.unlink)):
            yield self.server.uri

    @contextlib.contextmanager
    def _proxied(self, choose, delay=0.0):
        self.calm = False
        with FaultProxy(self.server.uri, lambda *call: None if self.calm else choose(*call), delay) as proxy:
            yield proxy.uri
            self.calm = True
            sent()
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
            sent()
        del os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]

    @contextlib.contextmanager
    def never_there(self):
        yield "http://127.0.0.1:9"


FAULTS = (
    "nothing", "stopped_60_s", "killed_and_restarted", "disk_full", "half_are_500", "latency_10_s", "reset_uploads",
    "lost_replies", "wrong_credentials", "never_there",
)  # fmt: skip


def sent(to=None):
    """Send what was left, as ``stm sync`` does."""
    for one in syncing.sync([spool.root()], to):
        assert one.state == "sent", one


def killed_client(server, folder, kills):
    """Kill a recording process again and again; everything arrives, by the next one or ``stm sync``."""
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
    assert all(one.state == "sent" for one in sent), sent
    opened = store.connect(server.uri)
    kept = delivered.kept(folder / ".stm-spool").values()
    assert len(kept) == kills
    return sum((delivered.check(path, opened) for path in kept), start=delivered.Counter())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the faults' durations")
    parser.add_argument("--only", nargs="+", default=[*FAULTS, "killed_client"], choices=[*FAULTS, "killed_client"])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(int(options.child[0]), options.child[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server and its disk go too
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
        campaign, turns, failed = Campaign(server, small, options.scale), Work().turns, []
        for name in options.only:
            folder = base / name
            folder.mkdir()
            os.chdir(folder)
            row = {"fault": name}
            if name == "killed_client":
                row |= {"compared": killed_client(server, folder, 10)}
            else:
                campaign.begun.clear()
                with getattr(campaign, name)() as uri:
                    row |= train(uri, turns, 5 + 75 * options.scale, campaign.begun)
                    failed += [name] if row["ratio"] > LIMIT else []
                sent(server.uri if name == "never_there" else None)
                opened = store.connect(server.uri)
                kept = delivered.kept(spool.root())
                assert len(kept) == 1
                row |= {"compared": delivered.check(*kept.values(), opened)}
            print(json.dumps(row), flush=True)
    assert not failed, f"more than {LIMIT - 1:.0%} of the training's time: {failed}"


if __name__ == "__main__":
    main()
