"""Versions of a toy model with known arithmetic, good and bad, and a server that follows an alias to them.

``python -m support.serving_versions FOLDER [options of stm-serve]`` serves ``models:/toy@champion``, which is what
``FOLDER/alias.json`` says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from support.toy_models import Toy

TESTS = Path(__file__).resolve().parents[1]

ALIAS = "models:/toy@champion"
BAD = ("damaged", "other input", "not finite", "no model", "missing")


def toy(number):
    """The toy model of version ``number``: every version has weights of its own."""
    one = Toy()
    one.weight = np.random.default_rng([3, number]).normal(size=one.weight.shape).astype(np.float32)
    one.bias = np.random.default_rng([4, number]).normal(size=one.bias.shape).astype(np.float32)
    return one


def write_good(folder, number):
    """Write version ``number``; return the model."""
    one = toy(number)
    one.write(folder / f"{number}.onnx")
    return one


def write_bad(folder, number, kind):
    """Write a version that must be refused."""
    path = folder / f"{number}.onnx"
    one = toy(number)
    if kind == "damaged":
        one.write(path)
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "other input":
        one.write(path, change={"input": {**one.describe()["input"], "unit": "m"}})
    elif kind == "not finite":
        one.weight = one.weight * np.float32(np.nan)
        one.write(path)
    elif kind == "no model":
        path.write_bytes(os.urandom(4096))
    else:
        assert kind == "missing"


def point(folder, number):
    """Let the alias name version ``number``."""
    part = folder / "alias.part"
    part.write_text(json.dumps({"version": number}))
    part.replace(folder / "alias.json")


def resolver(folder):
    """What pipelines would hand in: says which version the alias names."""
    from deploy.serving.catalog import Version

    def resolve(address):
        assert address == ALIAS
        number = json.loads((folder / "alias.json").read_text())["version"]
        return Version(str(number), folder / f"{number}.onnx")

    return resolve


@contextmanager
def serving(folder, *options, follow=True):
    """Run the server in a process of its own; yields the process, its address and what it said, which grows."""
    command = [sys.executable, "-m", "support.serving_versions", str(folder)] if follow else [
        sys.executable, "-m", "deploy.serving.cli", str(folder)]  # fmt: skip
    words = ["--port", "0", "--provider", "cpu", *options]
    log = Path(folder if follow else Path(folder).parent) / "server.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *words], stderr=file, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            yield process, _address(process, log), log
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _address(process, log):
    import time

    for _ in range(1200):
        found = re.search(r"^ready: (\S+)", log.read_text(), re.M)
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"not ready: {log.read_text()}")


def main(folder, *options):
    import argparse

    from deploy.serving.cli import serve_models
    from deploy.serving.options import options as add_options

    parser = argparse.ArgumentParser()
    add_options(parser)
    serve_models([ALIAS], parser.parse_args(options), resolver(Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
