"""Counters of a server, for Prometheus: one row of numbers for each worker process, in memory that all of them share.

References
----------
.. [1] Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.process import processor_seconds

__all__ = ["BUCKETS", "CONTENT_TYPE", "ENDED", "ROUTES", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROUTES = ("infer", "explain", "invocations", "metadata", "health", "metrics", "page", "other")
_STATUSES = (200, 304, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 431, 500, 503)
_OTHER = 0
ENDED = "stm.ended"
"""Key in the scope of a request whose connection ended with a status of its own while the body arrived."""
_PER_MODEL = {
    "rows": "Images answered.",
    "swaps": "New versions taken into service.",
    "refused": "New versions refused; the old one went on.",
    "poll_failures": "Times that nobody could say which version an alias names.",
}
_OF_PROCESS = {
    "queue_rows": ("gauge", "Images that wait or are being computed."),
    "body_bytes": ("gauge", "Bytes of request bodies, and of long answers, in memory."),
    "batches": ("counter", "Batches made of several requests."),
    "batched_rows": ("counter", "Images in them."),
}


class Metrics:
    """Counts requests, images and swaps, and writes them as text.

    Parameters
    ----------
    models : sequence of str
        Names of the served models.
    cells : (workers, `Metrics.width`) float64, optional
        Zeros at first; every worker writes into its own row only, but for the processor time that it sees of others.
    row : int
        The row of this process.
    """

    def __init__(self, models: Sequence[str], cells: NDArray[np.float64] | None = None, row: int = 0) -> None:
        self.models = tuple(models)
        self._places = self._layout(self.models)
        self._cells = np.zeros((1, len(self._places))) if cells is None else cells
        self._mine: Any = memoryview(self._cells[row])
        # Of a worker that had this row before.
        self._mine[self._places["seconds_ended"]] += self._mine[self._places["seconds_seen"]]
        self._mine[self._places["seconds_seen"]] = 0.0
        self._mine[self._places["pid"]] = float(os.getpid())
        for name in [name for name, (kind, _) in _OF_PROCESS.items() if kind == "gauge"]:
            self.gauge(name, 0.0)  # a worker that died before may have left others
        self._latency = {route: self._places["seconds", route, 0] for route in ROUTES}
        self._request = {key[1:]: place for key, place in self._places.items() if key[0] == "requests"}
        self._rows = {name: self._places["rows", name] for name in self.models}

    @classmethod
    def width(cls, models: Sequence[str]) -> int:
        """Return how many numbers one row holds."""
        return len(cls._layout(models))

    def request(self, route: str, status: int, seconds: float | None = None) -> None:
        """Count one answered request; without ``seconds`` one that the application never had."""
        mine = self._mine
        place = self._request.get((route, status))
        mine[self._request[route, _OTHER] if place is None else place] += 1.0
        if seconds is None:
            return
        first = self._latency[route]
        mine[first + bisect_left(BUCKETS, seconds)] += 1.0
        mine[first + len(BUCKETS) + 1] += seconds

    def rows(self, model: str, count: int) -> None:
        """Count images that were answered."""
        self._mine[self._rows[model]] += count

    def event(self, kind: str, model: str) -> None:
        """Count one of ``swaps``, ``refused``, ``poll_failures``."""
        self._mine[self._places[kind, model]] += 1.0

    def batch(self, rows: int) -> None:
        """Count one batch."""
        self._mine[self._places["batches",]] += 1.0
        self._mine[self._places["batched_rows",]] += rows

    def gauge(self, name: str, value: float) -> None:
        """Set ``queue_rows`` or ``body_bytes``."""
        self._mine[self._places[name,]] = value

    def count(self, *key: Any) -> float:
        """Return one number over all workers, e.g. ``("requests", "infer", 200)`` or ``("swaps", "stm-hubbard")``."""
        return float(self._cells[:, self._places[key]].sum())

    def processes(self) -> list[int]:
        """Return the process ids of all workers."""
        return [int(pid) for pid in self._cells[:, self._places["pid"]] if pid]

    def processor_seconds(self) -> float:
        """Return the processor time of all workers; of those that have ended what was seen here: it never falls."""
        pid, seen, ended = (self._places[name] for name in ("pid", "seconds_seen", "seconds_ended"))
        for row in self._cells:
            row[seen] = max(row[seen], processor_seconds([int(row[pid])]))
        return float(self._cells[:, [seen, ended]].sum())

    def text(self, information: Sequence[tuple[str, str, str, Sequence[tuple[dict[str, str], float]]]] = ()) -> str:
        """Write everything, and ``information``: (name, kind, help, [(labels, value)]) of more."""
        total = self._cells.sum(axis=0)
        lines = [*_head("stm_requests_total", "counter", "Answered requests; other, too, what never was a whole one.")]
        for (route, status), place in self._request.items():
            if total[place]:
                lines.append(
                    _line("stm_requests_total", {"route": route, "status": str(status or "other")}, total[place])
                )
        said = "From the last byte of a request, or its head where it was refused at once, to the last of its answer."
        lines += _head("stm_request_seconds", "histogram", said)
        for route, first in self._latency.items():
            counts = np.cumsum(total[first : first + len(BUCKETS) + 1])
            if counts[-1]:
                for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                    lines.append(_line("stm_request_seconds_bucket", {"route": route, "le": bound}, count))
                lines.append(_line("stm_request_seconds_sum", {"route": route}, total[first + len(BUCKETS) + 1]))
                lines.append(_line("stm_request_seconds_count", {"route": route}, counts[-1]))
        for kind, text in _PER_MODEL.items():
            lines += _head(f"stm_{kind}_total", "counter", text)
            lines += [
                _line(f"stm_{kind}_total", {"model": name}, total[self._places[kind, name]]) for name in self.models
            ]
        for name, (kind, text) in _OF_PROCESS.items():
            full = f"stm_{name}_total" if kind == "counter" else f"stm_{name}"
            lines += [*_head(full, kind, text), _line(full, {}, total[self._places[name,]])]
        for full, kind, text, values in information:
            lines += _head(full, kind, text)
            lines += [_line(full, labels, value) for labels, value in values]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _layout(models: Sequence[str]) -> dict[Any, int]:
        keys: list[Any] = ["pid", "seconds_seen", "seconds_ended"]
        keys += [("requests", route, status) for route in ROUTES for status in (*_STATUSES, _OTHER)]
        keys += [("seconds", route, part) for route in ROUTES for part in range(len(BUCKETS) + 2)]
        keys += [(kind, name) for kind in _PER_MODEL for name in models]
        keys += [(name,) for name in _OF_PROCESS]
        return {key: place for place, key in enumerate(keys)}


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _line(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:.17g}" if inside else f"{name} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
