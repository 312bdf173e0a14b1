"""Rows by SQL against those that mlflow's own search gives, as a store changes; of a server the same."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tracking import rows, runs
from tracking.backend import Metric
from tracking.snapshot import Reader
from tracking.store import Store, connect


@pytest.fixture
def store(tmp_path):
    return connect(f"sqlite:///{tmp_path}/mlflow.db")


def curve(store, run, name, values, first=0):
    metrics = [Metric(name, value, 1000 + step, step) for step, value in enumerate(values, first)]
    store.client.log_batch(run.id, metrics=metrics)


def same(store, reader, experiment=None):
    def searched():
        return sorted(map(repr, rows.find(store, experiment, limit=10_000)))  # NaN is not equal to itself

    while True:  # a run in progress says every few seconds that it is alive
        before, found, after = searched(), reader.read(experiment), searched()
        if before == after:
            assert sorted(map(repr, found.rows)) == before
            return found


def test_rows_are_those_of_the_search_after_every_change(store):
    reader = Reader(store)
    assert reader.read().rows == []
    assert reader.experiments() == []
    with runs.start(store, "hubbard", "first", tags={"network": "conv"}) as spooled:
        first = runs.existing(store, spooled.id)  # without a spool: what is written is there at once
        first.params({"a": {"b": 1}})
        curve(store, first, "mae", [0.5, 0.1, float("nan"), 0.3])
        assert same(store, reader).extremes[first.id] == {"mae": (0.1, 0.5)}
        # Older than what is known already: the last value stays, the best does not.
        curve(store, first, "mae", [0.01], first=1)
        assert same(store, reader).extremes[first.id] == {"mae": (0.01, 0.5)}
        first.tags({"outcome": "killed"})
        same(store, reader)
        first.tags({"outcome": "pruned"})  # as long as before
        same(store, reader)
        first.params({"c": 2})
        same(store, reader)
    with runs.start(store, "impurity", "second", parent=first.id) as second:
        second.metrics({"f1": np.inf, "zero": float("nan")})
    assert {row.name for row in same(store, reader).rows} == {"first", "second"}
    before = reader.read()
    assert reader.read().rows is before.rows  # nothing changed, nothing read
    assert [row.name for row in same(store, reader, "impurity").rows] == ["second"]
    assert reader.experiments() == ["hubbard", "impurity"]
    curves = reader.history([first.id, second.id], "mae")
    assert curves[first.id][0] == (0, 0.5)
    assert [step for step, value in curves[first.id] if value != value] == [2]  # NaN, which mlflow stores as 0
    store.client.delete_run(first.id)
    assert [row.name for row in same(store, reader).rows] == ["second"]
    store.client.delete_experiment(store.client.get_experiment_by_name("impurity").experiment_id)
    assert reader.read().rows == []


def test_the_number_before_a_nan_is_the_best_of_a_run_that_diverged(store):
    with runs.start(store, "diverged", "run") as spooled:
        run = runs.existing(store, spooled.id)
        curve(store, run, "val_mae", [0.5, float("nan")])
        curve(store, run, "other_mae", [float("nan"), float("nan")])
        curve(store, run, "mae", [0.5])
        for reader in (Reader(store), Reader(Store("http://fake", store.client, None))):
            assert reader.read("diverged", ["val_mae", "other_mae"]).extremes[run.id] == {"val_mae": (0.5, 0.5)}


def test_times_in_nanoseconds_hide_no_run(store):
    experiment = store.experiment("nano")
    nano = store.client.create_run(experiment, start_time=time.time_ns()).info.run_id
    store.client.set_terminated(nano)
    reader = Reader(store)
    for number in range(8):  # so many are more than 64 bits together
        store.client.log_metric(nano, f"m{number}", 1.0, timestamp=time.time_ns())
    (row,) = same(store, reader, "nano").rows
    assert len(row.metrics) == 8
    store.client.log_metric(nano, "m0", 0.5, timestamp=time.time_ns())
    assert same(store, reader, "nano").extremes[nano] == {"m0": (0.5, 1.0)}
    assert f"{row.start:%Y}" == "9999"


def test_a_server_gives_the_same(remote):
    with runs.start(remote, "snapshots", "run") as run:
        curve(remote, run, "val_mae", [0.5, 0.1, 0.3])
        run.metrics({"mae": 2.0})
    found = Reader(remote).read("snapshots", ["val_mae", "mae", "other"])
    (row,) = found.rows
    assert row.metrics == {"val_mae": 0.3, "mae": 2.0}
    assert row.steps == {"val_mae": 2, "mae": 0}
    assert found.extremes == {run.id: {"val_mae": (0.1, 0.5)}}
    assert Reader(remote).history([run.id], "val_mae") == {run.id: [(0, 0.5), (1, 0.1), (2, 0.3)]}


def test_many_threads_read_while_another_writes(store):
    reader, wrong = Reader(store), []
    with runs.start(store, "busy", "run") as run:

        def read():
            for _ in range(15):
                try:
                    values = [row.metrics.get("x", 0.0) for row in reader.read("busy").rows]
                    wrong.extend(value for value in values if value != value)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for step in range(15):
            store.client.log_metric(run.id, "x", step, step=step)
        for thread in threads:
            thread.join()
    assert not wrong
    assert reader.read("busy").rows[0].metrics["x"] == 14
