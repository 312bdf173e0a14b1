"""kill -9, again and again, over a simulation with two workers: the data set must come out as if nothing had been.

Run by ``make campaign`` (200 kills); the tests do 5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from support import toy_task

TESTS = Path(__file__).resolve().parent
PYTHONPATH = f"{TESTS}:{TESTS.parent}"
"""Where other processes find the toy task and us."""


def start(out, config, workers=2, executor="local"):
    """Start a simulation of the toy task in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.toy_task", out, str(workers), config.model_dump_json(), executor],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out):
    """Number of finished groups."""
    return len([p for p in out.glob("group_result/c.*") if p.suffix != ".partial"])


def workers_of(pid):
    """Process ids of the local executor's workers."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in children.read_text().split()]
        except OSError:
            continue
    return [child for child in found if b"spawn_main" in _command_line(child)]


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def litter(out):
    """Whatever lies in and beside a finished store and does not belong there."""
    beside = [path.name for path in out.parent.iterdir() if path != out]
    return beside + [path.name for path in out.rglob("*") if path.suffix == ".partial" or path.name.startswith(".")]


def campaign(folder, kills, seed=0, config=None, undisturbed=None, report=None):
    """Kill a worker or the whole process group at random moments, ``kills`` times, then let it finish.

    A kill counts when the process was there and groups were unfinished afterwards. When a simulation is
    finished before there were enough kills, it is checked and the next one is begun.

    Returns
    -------
    dict
        Kills of either kind, data sets, restarts, and kills that came too late to count.
    """
    config = config or toy_task.ToyConfig(chains=8, length=40, seconds=0.05)
    total = config.chains * config.length
    if undisturbed is None:
        undisturbed = simulate(
            toy_task.ToyTask(), config, folder / "undisturbed" / "a.zarr", workers=2, progress=False
        ).digest
    draw = random.Random(seed)
    counts = {"worker": 0, "group": 0, "late": 0, "starts": 0, "data_sets": 0}
    start_time = time.monotonic()
    while True:
        out = folder / f"round{counts['data_sets']}" / "a.zarr"
        while True:
            process = start(out, config)
            counts["starts"] += 1
            # Every round is left alone when there were enough kills.
            while counts["worker"] + counts["group"] < kills:
                before = finished(out)
                if draw.random() < 0.8:  # when work goes on; else at any moment, start-up among them
                    wait_for(lambda: finished(out) > before or process.poll() is not None)  # noqa: B023
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0.0, 0.5))
                if process.poll() is not None:
                    break
                kind = draw.choice(["worker", "group"])
                if kind == "worker":
                    alive = workers_of(process.pid)
                    if not alive:
                        continue
                    os.kill(draw.choice(alive), signal.SIGKILL)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                counts[kind if finished(out) < total else "late"] += 1
                done = counts["worker"] + counts["group"]
                if report and done % 20 == 0:
                    report(f"{done} kills, {finished(out)} of {total} groups, {time.monotonic() - start_time:.0f} s")
                if kind == "group":
                    break
            _, text = process.communicate()
            if process.returncode == 0:
                break
            # Killed by us, or given up because we killed three workers in a row at one group: run it again.
            assert process.returncode == -signal.SIGKILL or "times in a row" in text, text
        counts["data_sets"] += 1
        digest = load(out, verify=True).attributes["digest"]
        assert digest == undisturbed, f"digest {digest}, undisturbed {undisturbed}"
        assert not litter(out), litter(out)
        if counts["worker"] + counts["group"] >= kills:
            return {**counts, "digest": digest, "seconds": round(time.monotonic() - start_time, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        print(json.dumps(campaign(Path(place), asked.kills, asked.seed, report=lambda text: print(text, flush=True))))
