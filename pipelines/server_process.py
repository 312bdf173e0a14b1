"""``stm serve`` as a process of its own, for as long as it is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.client import Client
from stm_models.errors import InputError

__all__ = ["serving"]

_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(model: str, seconds: float = 120) -> Iterator[Client]:
    """Serve ``model`` on a free port of this machine while the block runs; yields a connected client.

    Raises
    ------
    InputError
        When the server does not answer within so many seconds; with its last words.
    """
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "serve", model, "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    said: list[str] = []
    heard = threading.Event()
    listener = threading.Thread(target=_listen, args=(process, said, heard), daemon=True)
    listener.start()
    try:
        in_time = heard.wait(seconds)
        ready = next((line for line in said if line.startswith("ready: ")), None)
        if ready is None:
            what = "ended before it was ready" if in_time else f"did not start in {seconds:.0f} s"
            raise InputError(f"the server {what}: {said[-1] if said else 'it said nothing'}")
        client = Client(ready.split()[1])
        client.wait_ready(seconds)
        yield client
        client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listen(process: subprocess.Popen[str], said: list[str], heard: threading.Event) -> None:
    """Keep reading, so that the pipe never fills up; a closed pipe ends the wait too."""
    for line in process.stderr or ():
        said.append(line.strip())
        if line.startswith("ready: "):
            heard.set()
    heard.set()
