"""A server under mixed load while its model changes: every answer must be that of one version, and nothing may leak."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import psutil

from deploy.serving.protocol import HEADER, decode_response, encode_request
from support.serving_versions import BAD, point, serving, write_bad, write_good

NAME = "toy"
OUTPUTS = ("prediction", "gradient", "distance")
KINDS = ("binary", "binary", "binary", "mixed", "json", "explain", "invocations", "metadata", "metrics")


class Bank:
    """Images, and what every version answers about them."""

    def __init__(self, count=24):
        self.images = [
            np.random.default_rng([9, i]).normal(size=(1 + i % 4, 2, 4, 5)).astype("f4") for i in range(count)
        ]
        self.expected = {}

    def add(self, number, model):
        self.expected[str(number)] = [model.expected(images) for images in self.images]

    def right(self, version, index, outputs, names):
        """Whether ``outputs`` are ``names``, and all of them those of one version."""
        known = self.expected.get(version)
        return (
            known is not None
            and set(outputs) == set(names)
            and all(
                values.shape == known[index][name].shape
                and np.allclose(values, known[index][name], rtol=1e-3, atol=1e-3)
                for name, values in outputs.items()
            )
        )


class Load:
    """Connections that ask without a pause, and what came of it."""

    def __init__(self, url, bank, connections, seed=0):
        parts = urlsplit(url)
        self.host, self.port, self.bank, self.connections = parts.hostname, parts.port, bank, connections
        self.random = random.Random(seed)
        self.stop = asyncio.Event()
        self.answers, self.failed, self.wrong, self.seen = 0, [], [], set()

    async def run(self):
        await asyncio.gather(*(self._client() for _ in range(self.connections)))

    async def _client(self):
        reader, writer = await asyncio.open_connection(self.host, self.port)
        while not self.stop.is_set():
            kind, index = self.random.choice(KINDS), self.random.randrange(len(self.bank.images))
            names = self._names(kind)
            try:
                status, headers, body = await asyncio.wait_for(self._ask(reader, writer, kind, index, names), 60)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                self.failed.append(f"{kind}: {error!r}")
                writer.close()
                reader, writer = await asyncio.open_connection(self.host, self.port)
                continue
            self.answers += 1
            if status != 200:
                self.failed.append(f"{kind}: {status} {body[:200]!r}")
            elif not self._right(kind, index, names, headers, body):
                self.wrong.append(f"{kind}: image {index}: {body[:200]!r}")
        writer.close()

    def _names(self, kind):
        """Outputs to ask for."""
        if kind == "binary":
            return self.random.sample(OUTPUTS, self.random.randint(1, 3))
        return {"mixed": ["gradient"], "explain": ["gradient"], "json": list(OUTPUTS)}.get(kind, ["prediction"])

    async def _ask(self, reader, writer, kind, index, names):
        images = self.bank.images[index]
        path, body, length, method = f"/v2/models/{NAME}/infer", b"", None, "POST"
        if kind in ("binary", "mixed", "explain"):
            name = f"{index}" if kind == "mixed" else None
            body, length = encode_request(images, names, request_id=name)
            path = path.replace("infer", "explain") if kind == "explain" else path
        elif kind == "json":
            body, length = encode_request(images, names, binary=False)
        elif kind == "invocations":
            path, body = "/invocations", json.dumps({"inputs": images.tolist()}).encode()
        else:
            method, path = "GET", f"/v2/models/{NAME}" if kind == "metadata" else "/metrics"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", f"Content-Length: {len(body)}"]
        if length is not None:
            lines.append(f"{HEADER}: {length}")
        message = "\r\n".join([*lines, "", ""]).encode() + body
        cut = self.random.randrange(len(message)) if self.random.random() < 0.1 else 0
        if cut:
            writer.write(message[:cut])
            await asyncio.sleep(0.002)
        writer.write(message[cut:])
        await writer.drain()
        return await read_answer(reader)

    def _right(self, kind, index, names, headers, body):
        if kind == "metrics":
            return b"stm_requests_total" in body
        if kind == "metadata":
            (version,) = json.loads(body)["versions"]
            return version in self.bank.expected
        if kind == "invocations":
            outputs = {"prediction": np.array(json.loads(body)["predictions"], np.float32)}
            return any(self.bank.right(version, index, outputs, names) for version in self.bank.expected)
        outputs, head = decode_response(body, headers.get(HEADER.lower()))
        self.seen.add(head["model_version"])
        # An explanation comes with all that is cheap.
        return self.bank.right(head["model_version"], index, outputs, OUTPUTS if kind == "explain" else names)


async def read_answer(reader):
    """Read one HTTP answer: status, headers by lower-case name, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


def soak(folder, minutes, moves=20, bad=5, connections=16, workers=1, report=None):
    """Keep a server busy for ``minutes``; meanwhile its alias moves to ``moves`` good and ``bad`` bad versions.

    Returns
    -------
    dict
        Counts, and what failed, was wrong, or grew.
    """
    bank, number = Bank(), 1
    bank.add(1, write_good(folder, 1))
    point(folder, 1)
    with serving(folder, "--poll-seconds", "0.2", "--workers", str(workers)) as (process, url, log):
        load = Load(url, bank, connections)
        found = asyncio.run(_campaign(folder, minutes, moves, bad, bank, load, process, url, number, report))
        found["descriptors_after"] = _settled(process, found["descriptors_before"])
    assert process.returncode == 0, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text, text
    return found


async def _campaign(folder, minutes, moves, bad, bank, load, process, url, number, report):
    descriptors = _descriptors(process)
    running = asyncio.create_task(load.run())
    began = time.monotonic()
    steps = ["good"] * moves + [BAD[i % len(BAD)] for i in range(bad)]
    random.Random(1).shuffle(steps)
    pause = minutes * 60 / (len(steps) + 2)
    memory, versions = [], []

    async def pass_time(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(min(1.0, max(0.0, end - time.monotonic())))
            memory.append((time.monotonic() - began, _memory(process)))
            assert process.poll() is None, "the server died"

    await pass_time(pause)
    for step, kind in enumerate(steps):
        number += 1
        if kind == "good":
            bank.add(number, write_good(folder, number))
            versions.append(str(number))
        else:
            write_bad(folder, number, kind)
        point(folder, number)
        await _until(url, number, kind == "good")
        if report:
            report(
                f"{time.monotonic() - began:5.0f} s: version {number} {kind}; {load.answers} answers, "
                f"{len(load.failed)} failed, {len(load.wrong)} wrong, {_memory(process) / 2**20:.1f} MiB"
            )
        await pass_time(pause)
        if step == len(steps) - 1:
            await pass_time(pause)
    load.stop.set()
    await running
    grown = _growth(memory)
    return {
        "seconds": round(time.monotonic() - began), "answers": load.answers, "failed": len(load.failed),
        "wrong": len(load.wrong), "moves": moves, "bad_versions": bad,
        "versions_unseen": sorted(set(versions) - load.seen), "memory_growth": round(grown, 4),
        "memory_mib": round(memory[-1][1] / 2**20, 1), "descriptors_before": descriptors,
        "examples": (load.failed + load.wrong)[:5],
    }  # fmt: skip


async def _until(url, number, good, seconds=60):
    """Wait until the server says that it serves version ``number``, or that it refused it."""
    end = time.monotonic() + seconds
    while True:
        about = await asyncio.to_thread(_get, f"{url}/v2/models/{NAME}")
        refused = about["parameters"].get("refused", {})
        if good and about["versions"] == [str(number)]:
            assert not refused, refused
            return
        if not good and refused.get("version") == str(number):
            assert about["versions"] != [str(number)]
            return
        assert time.monotonic() < end, f"version {number} {'not taken' if good else 'not refused'}: {about}"
        await asyncio.sleep(0.05)


def _get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())


def _growth(memory):
    """Growth of memory from the second fifth of the time to the last one."""
    last = memory[-1][0]
    early = [value for when, value in memory if 0.2 * last <= when < 0.4 * last]
    late = [value for when, value in memory if when >= 0.8 * last]
    return statistics.median(late) / statistics.median(early) - 1


def _family(process):
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def _memory(process):
    return sum(one.memory_info().rss for one in _family(process))


def _descriptors(process):
    return sum(one.num_fds() for one in _family(process))


def _settled(process, before, seconds=20):
    """Descriptors once the server has seen that its clients went."""
    end = time.monotonic() + seconds
    while (count := _descriptors(process)) > before and time.monotonic() < end:
        time.sleep(0.1)
    return count
