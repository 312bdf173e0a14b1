"""A server of the command line on a free port."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_READY = "ready: "


@contextmanager
def served(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run ``stm`` with ``words``, which has to say that it is ready and to end well; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words, "--port", "0"],
        cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said: list[str] = []
    try:
        for line in process.stderr or ():
            said.append(line)
            if line.startswith(_READY):
                break
        assert said, "the server ended without a word"
        assert said[-1].startswith(_READY), "".join(said)
        yield said[-1].split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        assert process.stderr is not None
        process.stderr.close()
    assert code == 0, "".join(said)
