"""Reading uploaded files in processes of their own: one file, one process, with limits."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from deploy.model.metadata import ModelMetadata
from deploy.model.questions import Question, Reading
from deploy.model.stopping import ending
from deploy.serving.reading import wire
from stm_models.errors import InputError

__all__ = ["FileReader"]

_ROOT = Path(__file__).resolve().parents[3]
# Nothing of the server's environment but what Python itself needs: no token, no address, no credential.
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_IMPORT_SECONDS = 120
_LARGEST_ANSWER = 512 * 2**20


class FileReader:
    """Turns files into questions; may be used from several threads.

    A process takes seconds to import what it needs, so that one waits ready once `prepare` was called.

    Parameters
    ----------
    seconds : int
        Time that reading one file may take.
    memory : int
        Bytes of address space that it may take.
    """

    def __init__(self, *, seconds: int = 60, memory: int = 2 * 2**30) -> None:
        self.seconds, self.memory = seconds, memory
        self._lock = threading.Lock()
        self._spare: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start the process that will read the next file, unless it waits already."""
        with self._lock:
            if self._spare is None or self._spare.poll() is not None:
                self._spare = _start()

    def read(self, path: Path, about: ModelMetadata, reading: Reading) -> Question:
        """Read a file as `deploy.model.questions.read_file` does.

        Raises
        ------
        InputError
            As `read_file`, and for a file that takes too long or too much memory, or ends the process.
        """
        process = self._take()
        request = {
            "path": str(path), "reading": wire.reading_to(reading), "metadata": about.as_dict(),
            "memory": self.memory, "seconds": self.seconds,
        }  # fmt: skip
        try:
            with ending(process.kill):
                content = self._ask(process, json.dumps(request).encode() + b"\n")
        finally:
            _end(process)
        try:
            return wire.decode_question(content)
        except (ValueError, KeyError, TypeError, IndexError):
            raise InputError(
                "the file could not be read: its reader took too much time or memory, or failed on it; "
                "is the file damaged? crop it, or save it as .npz"
            ) from None

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            process, self._spare = self._spare, None
        if process is None or process.poll() is not None:
            if process is not None:
                _end(process)
            process = _start()
        return process

    def _ask(self, process: subprocess.Popen[bytes], request: bytes) -> bytes:
        """Return the answer, as far as it comes in time and is not too long."""
        out = process.stdout
        assert process.stdin is not None and out is not None  # noqa: S101, PT018
        heard = select.poll()  # `select.select` knows no descriptor above 1023
        heard.register(out, select.POLLIN)
        if not heard.poll(1000 * _IMPORT_SECONDS) or os.read(out.fileno(), 1) != b"\n":
            return b""
        end = time.monotonic() + self.seconds
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        answer = bytearray()
        while heard.poll(1000 * max(end - time.monotonic(), 0)):
            part = os.read(out.fileno(), 2**20)
            answer += part
            if not part or len(answer) > _LARGEST_ANSWER:
                break
        return bytes(answer)


def _start() -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "deploy.serving.reading.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**kept, **_ONE_THREAD, "PYTHONPATH": str(_ROOT)},
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
