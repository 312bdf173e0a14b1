"""Compare spools that were kept (STM_SPOOL_KEEP=1) with the runs in a store, value by value."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

from tracking import rows, runs, spool


def kept(base):
    """Return the spools in a folder that were delivered, by identity."""
    return {path.name: path for path in (base / "sent").glob("*")}


def check(folder, store):
    """Assert that the store has one run of this spool, with all that is in it, once.

    Returns
    -------
    Counter
        How many metrics, params, tags, files and data sets were compared.
    """
    records = [record for record, _ in spool.read(folder, limit=10**9)]
    assert not [record for record in records if record["kind"] == "damaged"]
    start, end = records[0], records[-1]
    assert (start["kind"], end["kind"]) == ("start", "end")
    if start["attach"]:
        run_id = runs.get(store, start["attach"]).id
    else:
        (run_id,) = rows.located(store, start["id"])
    run = store.client.get_run(run_id)
    assert run.info.status == end["status"]
    assert run.info.end_time == end["time"]
    assert start["attach"] or run.info.start_time == start["time"]

    expected = Counter()
    for record in records:
        if record["kind"] == "metrics":
            expected.update(
                (key, _same(value), record["time"], record["step"]) for key, value in record["values"].items()
            )
    # What is the same to the last bit and millisecond is one value to MLflow.
    expected = Counter(set(expected))
    found = Counter(
        (metric.key, _same(metric.value), metric.timestamp, metric.step)
        for key in {key for key, *_ in expected}
        for metric in store.client.get_metric_history(run_id, key)
    )
    assert found == expected, f"{len(found - expected)} too many, {len(expected - found)} lost"
    assert set(run.data.metrics) == {key for key, *_ in expected} or start["attach"]

    params, tags = {}, dict(start["tags"])
    for record in records:
        if record["kind"] == "params":
            params |= {key: value for key, value in record["values"].items() if key not in params}
        elif record["kind"] in ("tags", "end"):
            tags |= record.get("values", record.get("tags"))
    assert start["attach"] or run.data.params == params
    assert tags.items() <= run.data.tags.items()

    files = {record["name"]: record["sha256"] for record in records if record["kind"] == "artifact"}
    assert set(_files(store, run_id)) == set(files) or start["attach"]
    for name, digest in files.items():
        assert hashlib.sha256(runs.download(store, run_id, name).read_bytes()).hexdigest() == digest, name

    inputs = Counter(
        (record["dataset"]["name"], record["dataset"]["digest"]) for record in records if record["kind"] == "input"
    )
    assert Counter((one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs) == inputs
    return Counter(
        metrics=len(expected), params=len(params), tags=len(tags), files=len(files), inputs=len(inputs), runs=1
    )


def _same(value):
    return "nan" if math.isnan(value) else value


def _files(store, run_id, path=None):
    for entry in store.client.list_artifacts(run_id, path):
        if entry.is_dir:
            yield from _files(store, run_id, entry.path)
        else:
            yield entry.path
