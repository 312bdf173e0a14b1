"""The table of 1 000 runs x 50 metrics: ours against the stock MLflow UI, over one store, in one Chromium.

Both begin with 100 runs. Ours counts to the moment that these are laid out, the stock UI's to its first rows (it draws
those in sight); both from the call for the address, with an empty browser cache, in turns. The detail has the same with
all runs laid out (``rows=all``); our first byte: warm, after a change of the store, and of a page with all 50 metrics;
and what MLflow's own search takes for the same rows. A run or a best value that is not there as it was logged counts
as an error.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from _timing import arguments, report

from tracking import rows
from tracking.backend import Metric, Param, RunTag
from tracking.store import Store, connect

LIMIT = 0.3  # seconds for the first byte
METRICS, STEPS = 50, 5
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def fill(store: Store, count: int) -> dict[str, float]:
    """Log ``count`` runs; return the smallest value of the first metric of each."""
    experiment, rng, best = store.experiment("table"), np.random.default_rng(0), {}
    for number in range(count):
        tags = [RunTag("network", f"net-{number % 7}"), RunTag("outcome", "complete"), RunTag("data.digest", "0" * 64)]
        run = store.client.create_run(experiment, run_name=f"run {number}").info.run_id
        values = rng.random((STEPS, METRICS))
        now = int(time.time() * 1000)
        logged = [
            Metric(f"loss_{place:02d}" if place else "val_loss", float(value), now, step)
            for step, row in enumerate(values if number % 50 == 0 else values[:1])
            for place, value in enumerate(row)
        ]
        logged += [Metric("val_loss", float(value), now, step) for step, value in enumerate(values[1:, 0], 1)]
        params = [Param(f"train.option_{place}", str(number % (place + 2))) for place in range(20)]
        store.client.log_batch(run, metrics=logged[:1000], params=params, tags=tags)
        store.client.set_terminated(run)
        best[run] = float(values[:, 0].min())
    return best


@contextmanager
def serving(command: list[str], port: int, path: str, folder: Path) -> Iterator[str]:
    """Run a server until the block ends; return its address once ``path`` answers."""
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
    with (folder / f"{port}.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                get(url + path).close()
                break
            except OSError:
                assert server.poll() is None, (folder / f"{port}.log").read_text()[-2000:]
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def get(url: str) -> Any:
    """Ask a server of this machine."""
    return urllib.request.urlopen(url, timeout=120)  # noqa: S310


def first_byte(url: str) -> float:
    """Seconds from a request to the first byte of the answer's body."""
    start = time.perf_counter()
    with get(url) as answer:
        answer.read(1)
        return time.perf_counter() - start


def shown(browser: Any, url: str, complete: str) -> float:
    """Open a page without a cache; return the seconds until ``complete`` holds in it, drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_function(complete, timeout=240_000, polling="raf")
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def alternating(rounds: int, *ways: Callable[[], float]) -> list[list[float]]:
    """Return the seconds of each way, ``rounds`` times in turns, after one that does not count."""
    found: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for place in range(len(ways))[:: -1 if number % 2 else 1]:
            seconds = ways[place]()
            if number:
                found[place].append(seconds)
    return found


def compared(table: str, stock: str, count: int, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the ratio of the two first tables in one browser and the times; only the reason, without a browser."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        why = "Chromium is not installed (Debian: chromium): no page was opened"
        print(why, file=sys.stderr)
        return {}, {"left_out": why}
    laid_out = "() => document.querySelectorAll('tbody tr').length === {}"
    rendered = "() => document.querySelectorAll('.ag-center-cols-container .ag-row').length > 5"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        own, whole, reference = alternating(
            rounds,
            lambda: shown(browser, table, laid_out.format(100)),
            lambda: shown(browser, f"{table}&rows=all", laid_out.format(count)),
            lambda: shown(browser, stock, rendered),
        )
        browser.close()
    median = statistics.median
    ratios = [theirs / mine for mine, theirs in zip(own, reference, strict=True)]
    all_ratios = [theirs / mine for mine, theirs in zip(whole, reference, strict=True)]
    return {"ui_first_table": median(ratios)}, {
        "table_s": median(own), "all_rows_s": median(whole), "stock_table_s": median(reference), "ratios": ratios,
        "all_rows_ratio": median(all_ratios),
    }  # fmt: skip


def main() -> None:
    """Fill a store, check what is shown, then measure."""
    options = arguments(__doc__ or "")
    count, rounds = (150, 2) if options.quick else (1000, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = connect(f"sqlite:///{folder}/mlflow.db")
        best = fill(store, count)
        experiment = store.client.get_experiment_by_name("table").experiment_id
        ours, theirs = free_port(), free_port()
        stm = [sys.executable, "-m", "pipelines", "compare", "--port", str(ours)]
        os.environ["MLFLOW_TRACKING_URI"] = store.uri
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        mlflow = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(theirs)]
        mlflow += ["--workers", "1", "--backend-store-uri", store.uri]
        with serving(stm, ours, "/style.css", folder) as url, serving(mlflow, theirs, "/health", folder) as stock:
            table = f"{url}/?experiment=table"
            with get(f"{url}/table.csv?experiment=table&c=val_loss") as answer:
                lines = csv.DictReader(io.StringIO(answer.read().decode()))
                found = {line["id"]: float(line["val_loss"]) for line in lines}
            wrong = sum(found.get(run) != value for run, value in best.items()) + len(found.keys() - best.keys())
            warm = [first_byte(table) for _ in range(9)]
            every = [first_byte(f"{table}&c=all") for _ in range(5)]
            changed = []
            for step in range(5):
                store.client.log_metric(next(iter(best)), "late", step, step=step)
                changed.append(first_byte(table))
            start = time.perf_counter()
            assert len(rows.find(store, "table", limit=10 * count)) == count
            search = time.perf_counter() - start
            ratios, pages = compared(table, f"{stock}/#/experiments/{experiment}/runs", count, rounds)
    median = statistics.median
    report(
        "comparison_ui",
        {**ratios, "over_first_byte": median(warm) / LIMIT},
        {"wrong": float(wrong)},
        {
            "runs": count, "metrics": METRICS,
            "first_byte_s": median(warm), "first_byte_after_change_s": median(changed),
            "first_byte_all_metrics_s": median(every), "mlflow_search_s": search, **pages,
        },
        as_json=options.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
