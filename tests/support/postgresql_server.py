"""A real PostgreSQL in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from support.ports import free_port


def _program(name):
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else None)


@contextlib.contextmanager
def serve():
    """Start a server; its address."""
    programs = {name: _program(name) for name in ("initdb", "postgres")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (Debian: postgresql)")
    prefix = []
    if os.geteuid() == 0:  # the server refuses to run as root
        if "postgres" not in {user.pw_name for user in pwd.getpwall()}:
            pytest.skip("needs a user postgres, since it may not run as root")
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        data = folder / "data"
        data.mkdir()
        if prefix:
            shutil.chown(data, "postgres", "postgres")
        initdb = [*prefix, programs["initdb"], "-D", str(data), "-A", "trust", "-U", "stm", "--no-sync"]
        subprocess.run(initdb, cwd="/", check=True, capture_output=True)
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [*prefix, programs["postgres"], "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-F",
                 "-c", "unix_socket_directories="],
                cwd="/", stdout=log, stderr=log,
            )  # fmt: skip
        try:
            wait(port, server, folder / "log")
            address = f"postgresql://stm@127.0.0.1:{port}/postgres"
            _wait_started(address)
            yield address
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(20)


def _wait_started(address):
    """The port is open before the server is."""
    end = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(address, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if "starting up" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def wait(port, process, log=None):
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end, log.read_text() if log else "ended"  # noqa: PT018
            time.sleep(0.05)
