"""bin/setup, up to where it would install."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "bin" / "setup"


@pytest.fixture
def setup(tmp_path):
    """Run the script in a folder with a space, on a machine that calls itself ``machine``."""
    folder = tmp_path / "a checkout"
    tools = tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()

    def run(machine, **extra):
        system, kind = machine.split()
        (tools / "uname").write_text(f'#!/bin/sh\n[ "$1" = -s ] && echo {system} || echo {kind}\n')
        (tools / "uv").write_text('#!/bin/sh\necho "$@" >> uv.log\n')
        for tool in tools.iterdir():
            tool.chmod(0o755)
        environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **extra}
        command = ["sh", str(SCRIPT), ".venv"]
        return folder, subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)

    return run


@pytest.mark.parametrize("machine", ["Darwin x86_64", "Linux aarch64"])
def test_machine_without_pins_is_refused(setup, machine):
    folder, done = setup(machine)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: this is {machine}, the pins of requirements.lock are for Linux x86_64")
    assert done.stderr.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_python_that_is_none_is_refused(setup):
    folder, done = setup("Linux x86_64", PYTHON="/no python/here")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Python 3.11 to 3.14 found at /no python/here")
    assert list(folder.iterdir()) == []


def test_environment_left_half_made_is_finished(setup):
    folder, done = setup("Linux x86_64")
    assert done.returncode == 0, done.stderr
    python = folder / ".venv" / "bin" / "python"
    made = python.lstat().st_mtime_ns
    assert setup("Linux x86_64")[1].returncode == 0
    assert python.lstat().st_mtime_ns == made, "an environment that works is kept"
    python.unlink()
    python.symlink_to("/nowhere")
    assert setup("Linux x86_64")[1].returncode == 0
    assert python.resolve().is_file()
    assert (folder / "uv.log").read_text().count("--require-hashes -r requirements.lock") == 3
