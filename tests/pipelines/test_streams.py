"""A reader that leaves early is no error of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

STM = [sys.executable, "-m", "pipelines"]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("models", "conv"), ("train", "--help")])
def test_nobody_reads(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*STM, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert done.returncode == (0 if arguments == ("train", "--help") else 1)  # argparse takes no notice itself
    assert not re.search("Traceback|Exception ignored|BrokenPipe", done.stderr)
