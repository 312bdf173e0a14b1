"""Progress with a rate and an ETA: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

__all__ = ["Progress"]

_WIDTH = 24  # of the bar
_COLUMNS = 80  # of a terminal that does not tell


class Progress:
    """Count finished units of a long piece of work on stderr.

    Parameters
    ----------
    total : int
        Number of units in all.
    label : str
        What is being done, e.g. ``"simulate"``.
    unit : str
        Name of one unit, e.g. ``"group"``.
    done : int
        Units that an earlier, interrupted call finished.
    every : float
        Seconds between plain lines where stderr is no terminal.
    """

    def __init__(
        self,
        total: int,
        label: str,
        unit: str = "it",
        *,
        done: int = 0,
        every: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.label, self.unit, self.every = total, label, unit, every
        self.done = self.first = done
        self.note = ""
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._start = time.monotonic()
        self._printed = self._start

    def __enter__(self) -> Progress:
        if self.first:
            self._line(f"{self.label}: continuing, {self.first} of {self.total} {self.unit}s were there")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tty:
            self._stream.write("\n")
        elif kind is None and self.done > self.first:
            self._line(self._text())

    def update(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` more finished units, with an optional short note (e.g. a loss)."""
        self.done += count
        self.note = note
        now = time.monotonic()
        if self._tty and (now - self._printed > 0.1 or self.done >= self.total):
            self._printed = now
            self._stream.write(f"\r\x1b[K{self._fitting()}")
            self._stream.flush()
        elif not self._tty and now - self._printed >= self.every:
            self._printed = now
            self._line(self._text())

    def _fitting(self) -> str:
        """Return what fits on one line: a longer one wraps, and is then no longer overwritten."""
        room = _columns(self._stream) - 1
        lines = (f"{self._bar()} {self._text()}", self._text(), self._text(spent=False))
        return next((line for line in lines if len(line) <= room), lines[-1][:room])

    def _bar(self) -> str:
        filled = round(_WIDTH * self.done / max(self.total, 1))
        return "[" + "#" * filled + "." * (_WIDTH - filled) + "]"

    def _text(self, spent: bool = True) -> str:
        seconds = time.monotonic() - self._start
        rate = (self.done - self.first) / seconds if seconds > 0 else 0.0
        left = f", {_clock((self.total - self.done) / rate)} left" if rate > 0 and self.done < self.total else ""
        note = f", {self.note}" if self.note else ""
        told = f", {_clock(seconds)} spent" if spent else ""
        return f"{self.label}: {self.done}/{self.total} {self.unit}s, {rate:.2f} {self.unit}/s{told}{left}{note}"

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
