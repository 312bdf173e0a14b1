"""A real mlflow server in a process group of its own, which can be stopped, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

from support.ports import free_port

SECONDS = 300  # a busy machine needs minutes


class Server:
    """Started by `start` in ``folder``, whatever happened before.

    Parameters
    ----------
    folder : Path
        Has its log, by default its database and its files.
    options : sequence of str
        Further options of ``mlflow server``.
    """

    def __init__(self, folder, *, backend="sqlite:///mlflow.db", options=(), **environment):
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", backend, *options,
        ]  # fmt: skip
        self._environment = {
            **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true", **environment,
        }  # fmt: skip
        self._process = None

    def start(self):
        """Start it and wait until it answers."""
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return self
            except urllib.error.HTTPError:
                return self  # it asks who we are
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def signal(self, number):
        """Send a signal to all of its processes."""
        os.killpg(self._process.pid, number)

    def kill(self):
        """Kill -9; nothing happens to one that is dead."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait()
