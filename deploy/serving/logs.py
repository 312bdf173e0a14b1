"""The server's own log on stderr: one line for one event, whatever words of a client's are in it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from deploy.serving.refusals import LOG, printable

__all__ = ["log_to_stderr"]


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        first, *rest = super().format(record).splitlines() or [""]
        # No message can start a line of its own, nor send control characters to a terminal.
        return "\n".join([printable(first), *(f"  | {printable(line)}" for line in rest)])


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what stderr is at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def log_to_stderr() -> None:
    """Write the log to stderr, once."""
    if LOG.handlers:
        return
    handler = _Stderr()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    LOG.propagate = False
