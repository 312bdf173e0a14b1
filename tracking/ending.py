"""How a recorded block ended: its status in MLflow, and more exactly its outcome."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["terminable", "verdict"]


def verdict(error: BaseException | None) -> tuple[str, str]:
    """Return status and outcome of a block that raised ``error``, or nothing."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED", "complete"
    optuna = sys.modules.get("optuna")  # not imported for its sake: it takes a second
    if optuna is not None and isinstance(error, optuna.TrialPruned):
        return "KILLED", "pruned"
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "killed"
    return "FAILED", "failed"


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, where nobody else listens to it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
