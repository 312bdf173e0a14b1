"""An interrupt ends a command with 130 wherever it comes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import atexit, sys
from pipelines import cli

def interrupted(*_):
    atexit.register(print, "the others have their turn")
    {raises}

cli._run = interrupted
sys.argv = ["stm", "doctor"]
raise SystemExit(cli.main())
"""


@pytest.mark.parametrize("raises", ["raise KeyboardInterrupt", "exec('raise KeyboardInterrupt')"])
def test_it_ends_with_130_and_nothing_is_left_out(tmp_path, raises):
    (tmp_path / "started.py").write_text(CODE.format(raises=raises))
    done = subprocess.run(
        [sys.executable, "-m", "started"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "the others have their turn\n"), done.stderr
    assert done.stderr == "interrupted: what was finished is kept\n"
