"""bin/setup, up to where it would install."""

from __future__ import annotations

import os
import subprocess
import sys
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


FAKE = """#!/bin/sh
case "$1" in
-c) exec "{python}" -c "import sys; sys.version_info = (3, {minor}, 0); $2" ;;
-m) echo {name} >&2; exit 7 ;;
esac
"""


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"python3": 14, "python3.14": 14, "python3.13": 13}, "python3.13"),
        ({"python3": 12, "python3.14": 14, "python3.13": 13}, "python3"),
        ({"python3": 10, "python3.14": 14}, "python3.14"),
    ],
)
def test_python_that_was_tested_goes_before_a_newer_one(setup, tmp_path, there, chosen):
    names = ("python3", "python", *(f"python3.{minor}" for minor in range(11, 15)))
    for name in names:  # those of this machine are hidden
        fake = FAKE.format(python=sys.executable, minor=there.get(name, 10), name=name)
        (tmp_path / "tools" / name).write_text(fake)
    _, done = setup("Linux x86_64")
    assert (done.returncode, done.stderr) == (7, f"{chosen}\n")


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
