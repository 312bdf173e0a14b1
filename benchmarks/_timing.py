"""What every benchmark needs: alternating timings, their ratio, and one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _project  # noqa: F401

__all__ = ["arguments", "machine", "paired", "parser_of", "report"]


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return what parses ``--quick`` and ``--json``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller problem, seconds instead of minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def arguments(description: str, *, devices: bool = False) -> argparse.Namespace:
    """Parse ``--quick`` and ``--json``, and ``--device`` where the benchmark has one."""
    parser = parser_of(description)
    if devices:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides compute")
    return parser.parse_args()


def paired(
    ours: Callable[[], Any],
    reference: Callable[[], Any],
    *,
    rounds: int,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Alternate both sides and compare them within each round.

    Parameters
    ----------
    ours, reference : callable
        Called without arguments, warmed up beforehand by the caller.
    rounds : int
        Pairs; the order within a pair changes from round to round.
    repeats : int
        Calls of ``ours`` per round, where it is much the faster; their median counts.
    clock : callable
        Seconds, from any start; ``time.process_time`` where other processes share the machine.

    Returns
    -------
    dict
        ``ratio`` (median over rounds of reference / ours), ``ratios``, medians ``ours_s``, ``reference_s``.
    """
    pairs = []
    for number in range(rounds):
        if number % 2:
            theirs = _seconds(reference, clock)
            own = statistics.median(_seconds(ours, clock) for _ in range(repeats))
        else:
            own = statistics.median(_seconds(ours, clock) for _ in range(repeats))
            theirs = _seconds(reference, clock)
        pairs.append((own, theirs))
    ratios = [theirs / own for own, theirs in pairs]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ours_s": statistics.median(own for own, _ in pairs),
        "reference_s": statistics.median(theirs for _, theirs in pairs),
    }


def report(
    name: str, ratios: dict[str, float], errors: dict[str, float], detail: dict[str, Any], *, as_json: bool
) -> None:
    """Print the result: one JSON object on one line, or a few lines for people."""
    if as_json:
        result = {"name": name, "machine": machine(), "ratios": ratios, "errors": errors, "detail": detail}
        print(json.dumps(result, allow_nan=False))
        return
    print(f"{name} on {machine()['cpu']}")
    for kind, values in (("ratio", ratios), ("error", errors)):
        for key, value in values.items():
            print(f"  {kind:6s} {key:24s} {value:.4g}")
    for key, value in detail.items():
        print(f"  {key}: {value}")


def _seconds(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def machine() -> dict[str, Any]:
    """Describe the processor and the system, without naming the host."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
