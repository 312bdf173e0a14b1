"""Recording metrics: ours until the store has them all against MLflow's own calls, in a SQLite file and over HTTP.

Ours is `tracking.runs`: one call for one number, as in a training, kept on the local disk and sent by a thread; the
time ends when the run is closed and everything is in the store. Against it ``log_metric`` one by one, ``log_metrics``
with ten numbers a call, and the asynchronous ``log_metric``, with MLflow's own buffering and with 2 s of it. Every
number is read back and compared: ``lost`` counts those that are not there exactly once. Wall time, since that is what a
server takes.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["STM_SYSTEM_METRICS"] = "0"
os.environ["STM_SPOOL_WAIT"] = "600"

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _timing import arguments, report

from tracking import runs
from tracking.store import Store, connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

Part = Callable[[Path, bool], tuple[dict[str, float], dict[str, float], dict[str, Any]]]
"""Takes a folder and whether to be quick; returns ratios, errors and detail."""


@dataclass(frozen=True)
class Way:
    """One way to record numbers, ``count`` of them a round."""

    record: Callable[[Store, list[float]], str]
    count: int
    quick: int


def ours(store: Store, values: list[float]) -> str:
    """One call a number, through the spool."""
    with runs.start(store, "rates", "ours") as run:
        for step, value in enumerate(values):
            run.metrics({"loss": value}, step)
    return run.id


def one_by_one(store: Store, values: list[float]) -> str:
    """MLflow's log_metric."""
    run_id = _new(store)
    for step, value in enumerate(values):
        store.client.log_metric(run_id, "loss", value, step=step)
    store.client.set_terminated(run_id)
    return run_id


def ten_a_call(store: Store, values: list[float]) -> str:
    """MLflow's log_metrics, ten keys a call."""
    import mlflow

    mlflow.set_tracking_uri(store.uri)
    run_id = _new(store)
    for step in range(0, len(values), 10):
        numbers = {f"loss{place}": value for place, value in enumerate(values[step : step + 10])}
        mlflow.log_metrics(numbers, step=step // 10, run_id=run_id, synchronous=True)
    store.client.set_terminated(run_id)
    return run_id


def asynchronous(store: Store, values: list[float]) -> str:
    """MLflow's log_metric without waiting, and the wait at the end."""
    run_id = _new(store)
    sent = [store.client.log_metric(run_id, "loss", v, step=step, synchronous=False) for step, v in enumerate(values)]
    for each in sent:
        each.wait()
    store.client.set_terminated(run_id)
    return run_id


def buffered(store: Store, values: list[float]) -> str:
    """The same with two seconds of buffering."""
    os.environ["MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"] = "2"
    try:
        return asynchronous(store, values)
    finally:
        del os.environ["MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"]


WAYS = {
    "ours": Way(ours, 20_000, 1000),
    "log_metric": Way(one_by_one, 400, 40),
    "log_metrics_10": Way(ten_a_call, 2000, 200),
    "async": Way(asynchronous, 400, 40),
    "async_2s": Way(buffered, 4000, 200),
}


def lost(store: Store, run_id: str, values: list[float]) -> int:
    """Count the numbers that the store does not have exactly once, at their step."""
    keys = store.client.get_run(run_id).data.metrics
    found: dict[int, list[float]] = {}
    for key in keys:
        place = int(key.removeprefix("loss") or 0)
        for metric in store.client.get_metric_history(run_id, key):
            found.setdefault(metric.step * (10 if key != "loss" else 1) + place, []).append(metric.value)
    return sum(found.get(number) != [value] for number, value in enumerate(values)) + max(0, len(found) - len(values))


def rates(folder: Path, quick: bool) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """Measure all ways, alternating, in both stores."""
    server = importlib.import_module("support.mlflow_server").Server(folder)
    missing, ratios, detail = 0, {}, {}
    try:
        stores = {"local": connect(f"sqlite:///{folder}/local.db"), "http": connect(server.start().uri)}
        for place, store in stores.items():
            seconds: dict[str, list[float]] = {name: [] for name in WAYS}
            for number in range(1 if quick else 3):
                for name, way in list(WAYS.items())[:: -1 if number % 2 else 1]:
                    values = [1 / (step + 2) for step in range(way.quick if quick else way.count)]
                    begun = time.perf_counter()
                    run_id = way.record(store, values)
                    seconds[name].append((time.perf_counter() - begun) / len(values))
                    missing += lost(store, run_id, values)
            print(f"{place}: {_rates(seconds)} per s", file=sys.stderr, flush=True)
            for name in WAYS:
                if name != "ours":
                    each = [other / own for own, other in zip(seconds["ours"], seconds[name], strict=True)]
                    ratios[f"{name}_{place}"] = statistics.median(each)
            detail[place] = _rates(seconds)
    finally:
        server.kill()
    return ratios, {"lost": float(missing)}, {"metrics_per_s": detail}


PARTS: tuple[Part, ...] = (rates,)


def _rates(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(1 / statistics.median(each), 1) for name, each in seconds.items()}


def _new(store: Store) -> str:
    return str(store.client.create_run(store.experiment("rates")).info.run_id)


def main() -> None:
    """Measure every part."""
    options = arguments(__doc__ or "")
    ratios: dict[str, float] = {}
    errors: dict[str, float] = {}
    detail: dict[str, Any] = {"quick": options.quick}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["STM_SPOOL"] = str(folder / "spool")
        for part in PARTS:
            for total, found in zip((ratios, errors, detail), part(folder, options.quick), strict=True):
                total |= found
    report("tracking", ratios=ratios, errors=errors, detail=detail, as_json=options.json)


if __name__ == "__main__":
    main()
