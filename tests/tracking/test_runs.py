from __future__ import annotations

import itertools
import json
import math
import os
import signal
import time

import optuna
import pytest
import yaml

from stm_models.errors import InputError
from tracking import closing, datasets, heartbeat, keeper, liveness, rows, runs
from tracking.sql_rows import Database
from tracking.store import connect

EXPERIMENT = "runs"


def test_everything_logged_reads_back(store, tmp_path, picture):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    config = {"train": {"epochs": 3, "rate": 1e-5, "name": "conv"}, "targets": ["U"], "text": "x" * 7000}
    (tmp_path / "note.txt").write_text("hello")
    with runs.start(store, EXPERIMENT, "whole", tags={"network": "conv"}) as run:
        run.config(config)
        run.metrics({"mae": 0.5}, step=0)
        run.metrics({"mae": 0.25, "r2": math.nan}, step=1)
        run.json({"a": [1, 2]}, "panel/index.json")
        run.artifact(tmp_path / "note.txt", "notes")
        figure = Figure()
        figure.subplots().imshow(picture)
        run.figure(figure, "figures/parity.png")
    row = runs.get(store, run.id)
    assert (row.name, row.experiment, row.status, row.outcome, row.parent) == (
        "whole", EXPERIMENT, "FINISHED", "complete", None,
    )  # fmt: skip
    assert row.params["train.epochs"] == "3"
    assert float(row.params["train.rate"]) == 1e-5
    assert row.params["train.name"] == "conv"
    assert json.loads(row.params["targets"]) == ["U"]
    assert len(row.params["text"]) == 6000
    assert yaml.safe_load(runs.download(store, run.id, "config.yaml").read_text()) == config
    assert row.metrics["mae"] == 0.25
    assert math.isnan(row.metrics["r2"])
    assert [(m.step, m.value) for m in store.client.get_metric_history(run.id, "mae")] == [
        (0, 0.5),
        (1, 0.25),
    ]
    assert json.loads(runs.download(store, run.id, "panel/index.json").read_text()) == {"a": [1, 2]}
    assert runs.download(store, run.id, "notes/note.txt", tmp_path / "copy").read_text() == "hello"
    assert runs.download(store, run.id, "figures/parity.png").read_bytes().startswith(b"\x89PNG")
    assert row.tags["network"] == "conv"
    assert row.seconds is not None
    assert row.seconds >= 0


def test_metrics_travel_in_batches(store, monkeypatch):
    calls = []
    send = store.client.log_batch
    monkeypatch.setattr(store.client, "log_batch", lambda *a, **k: (calls.append(k), send(*a, **k)))
    with runs.start(store, EXPERIMENT, "many") as run:
        for step in range(1200):
            run.metrics({"loss": 1.0 / (step + 1)}, step)
    sent = [len(call["metrics"]) for call in calls if "metrics" in call]
    assert sum(sent) == 1200
    assert len(sent) < 12
    assert len(store.client.get_metric_history(run.id, "loss")) == 1200


def test_environment_says_what_and_where(local):
    with runs.start(local, EXPERIMENT, "where") as run:
        run.environment({"split": 3})
    found = json.loads(runs.download(local, run.id, "environment.json").read_text())
    assert {"git", "python", "platform", "cpu", "memory_gb", "gpu", "packages", "seeds"} <= set(found)
    assert found["seeds"] == {"split": 3}
    assert found["cpu"]["cores"] >= 1
    assert found["packages"]["mlflow"]
    tags = runs.get(local, run.id).tags
    assert tags["seed.split"] == "3"
    if found["git"]:
        assert tags["git.commit"] == found["git"]["commit"]


def test_attaches_to_the_run_of_mlflow_run(store, monkeypatch):
    given = store.client.create_run(store.experiment(EXPERIMENT))
    store.client.log_param(given.info.run_id, "train.epochs", "7")
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    with runs.start(store, EXPERIMENT, "ignored") as run:
        assert run.id == given.info.run_id
        run.config({"train": {"epochs": 7, "rate": 0.1}})
        with runs.start(store, EXPERIMENT, "child", parent=run.id) as child:
            assert child.id != run.id
    with runs.start(store, EXPERIMENT, "later") as later:
        assert later.id not in (run.id, child.id)
    row = runs.get(store, run.id)
    assert (row.status, row.params) == ("FINISHED", {"train.epochs": "7", "train.rate": "0.1"})
    assert [found.id for found in runs.find(store, EXPERIMENT, parent=run.id)] == [child.id]


def test_child_does_not_take_the_given_run(local, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    parent = local.client.create_run(local.experiment(EXPERIMENT)).info.run_id
    with runs.start(local, EXPERIMENT, "child", parent=parent) as child:
        pass
    assert runs.get(local, child.id).parent == parent
    with pytest.raises(InputError, match="MLFLOW_RUN_ID"), runs.start(local, EXPERIMENT, "none"):
        pass


def test_a_run_to_resume_that_is_none_is_named(local):
    refused = pytest.raises(InputError, match=f"the run to resume is '{'e' * 32}'")
    with refused, runs.start(local, EXPERIMENT, "none", resume="e" * 32):
        pass


def test_a_run_that_is_taken_up_says_nothing_of_its_end_before(store):
    failed = pytest.raises(ValueError, match="bad")
    with failed, runs.start(store, EXPERIMENT, "taken up") as run:
        raise ValueError("bad")
    assert runs.get(store, run.id).outcome == "failed"
    with runs.start(store, EXPERIMENT, "", resume=run.id):
        read = [runs.get(store, run.id)]
        if not store.remote:
            found, _ = Database(store.uri).read(store.experiments())
            read += [row for row in found if row.id == run.id]
        assert {(row.outcome, row.seconds) for row in read} == {("running", None)}
    row = runs.get(store, run.id)
    assert row.outcome == "complete"
    assert row.seconds is not None
    assert "error" not in row.tags


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (ValueError("bad\nvalue"), "FAILED", "failed"),
        (SystemExit(1), "FAILED", "failed"),
        (SystemExit(0), "FINISHED", "complete"),
        (KeyboardInterrupt(), "KILLED", "killed"),
        (optuna.TrialPruned(), "KILLED", "pruned"),
    ],
)
def test_how_a_run_ends(local, error, status, outcome):
    ids = []

    def block():
        with runs.start(local, EXPERIMENT, "ends") as run:
            ids.append(run.id)
            run.metrics({"before": 1.0})
            raise error

    with pytest.raises(type(error)):
        block()
    row = runs.get(local, ids[0])
    assert (row.status, row.outcome) == (status, outcome)
    assert row.metrics == {"before": 1.0}
    if isinstance(error, ValueError):
        assert row.tags["error"] == "ValueError: bad"


def test_failure_of_the_store_does_not_hide_the_error(local, monkeypatch):
    ids = []

    def block(patch):
        with runs.start(local, EXPERIMENT, "both") as run:
            ids.append(run.id)
            patch.setattr(local.client, "set_terminated", lambda *a, **k: [][0])
            raise ZeroDivisionError("the first")

    with monkeypatch.context() as patch:
        with pytest.raises(ZeroDivisionError, match="the first"):
            block(patch)
        assert runs.get(local, ids[0]).status == "RUNNING"
    runs.bury(local, "nothing")
    deadline = time.monotonic() + 60
    while runs.get(local, ids[0]).status == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runs.get(local, ids[0]).tags["error"] == "ZeroDivisionError: the first"


def test_sigterm_ends_a_run_killed(tmp_path, start_script):
    code = (
        "import sys, time\nfrom tracking import runs, store\n"
        "try:\n"
        "    with runs.start(store.connect(sys.argv[1]), 'runs', 'long') as run:\n"
        "        run.metrics({'loss': 2.0}); print(run.id, flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: sys.exit(7)"
    )
    process = start_script(code, f"sqlite:///{tmp_path}/mlflow.db", folder=tmp_path)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", ""), "mlflow, alembic and the block are quiet"
    assert process.returncode == 7
    local = connect()
    row = runs.get(local, run_id)
    assert (row.status, row.outcome, row.metrics) == ("KILLED", "killed", {"loss": 2.0})


def test_runs_of_processes_that_are_gone_are_closed(local, monkeypatch):
    gone = liveness.identity().rpartition("/")[0] + "/0"  # another one had this number
    with runs.start(local, "buried", "own") as own, runs.start(local, "buried", "taken up") as taken_up:
        made = {"own": own.id, "taken up": taken_up.id}
        for name, process in (("dead", gone), ("elsewhere", "machine/1/1"), ("of another program", None)):
            tags = {} if process is None else {"process": process}
            made[name] = local.client.create_run(local.experiment("buried"), tags=tags).info.run_id
        found = runs.find(local, "buried", status="RUNNING")
        assert {row.id for row in found} == set(made.values())
        local.client.set_tag(taken_up.id, "process", gone)
        with runs.start(local, "buried", "", resume=taken_up.id):
            runs.bury(local, "buried")
            outcomes = {name: runs.get(local, run_id).outcome for name, run_id in made.items()}
        assert outcomes == {
            "own": "running", "taken up": "running", "dead": "killed", "elsewhere": "running",
            "of another program": "running",
        }  # fmt: skip
        # One that ended well between being found and being looked at stays so.
        with runs.start(local, "buried", "quick") as quick:
            local.client.set_tag(quick.id, "process", gone)
            late = runs.find(local, "buried", status="RUNNING")
        monkeypatch.setattr(closing, "find", lambda *_, **__: late)
        runs.bury(local, "buried")
        assert runs.get(local, quick.id).status == "FINISHED"


def test_a_run_that_another_process_still_records_is_not_gone_on_with(local):
    with runs.start(local, "living", "own") as own:
        with pytest.raises(InputError, match=rf"run {own.id} is still going on in process {os.getpid()}: wait"):
            runs.refuse_living(local, own.id)
        local.client.set_tag(own.id, "process", "machine/1/1")  # of another machine nobody knows
        runs.refuse_living(local, own.id)
    runs.refuse_living(local, own.id)


def test_the_next_run_of_an_experiment_closes_one_whose_process_was_killed(local):
    gone = liveness.identity().rpartition("/")[0] + "/0"
    left = local.client.create_run(local.experiment("closed"), tags={"process": gone}).info.run_id
    with runs.start(local, "closed", "next") as parent:
        assert runs.get(local, left).outcome == "killed"
        late = local.client.create_run(local.experiment("closed"), tags={"process": gone}).info.run_id
        with runs.start(local, "closed", "child", parent=parent.id):
            assert runs.get(local, late).status == "RUNNING"  # not looked for again with every child


def test_runs_of_other_machines_are_closed_when_they_gave_no_sign_of_life_for_long(local):
    made = {}
    for name, process, age in (
        ("silent", "machine/1/1", 4000),
        ("alive", "machine/1/1", 60),
        ("asleep here", liveness.identity(), 4000),
    ):
        tags = {"process": process, "alive": str(int(time.time()) - age)}
        made[name] = local.client.create_run(local.experiment("silent"), tags=tags).info.run_id
    runs.bury(local, "silent")
    assert runs.get(local, made["silent"]).outcome == "killed"
    assert runs.get(local, made["alive"]).status == "RUNNING"
    assert runs.get(local, made["asleep here"]).status == "RUNNING"


def test_a_tag_of_others_is_no_sign_of_life(local):
    tags = {"process": "machine/1/1", "alive": "yes"}
    theirs = local.client.create_run(local.experiment("tagged"), tags=tags).info.run_id
    with runs.start(local, "tagged", "mine"):
        pass
    assert runs.get(local, theirs).status == "RUNNING"


def test_a_run_gives_signs_of_life(local, monkeypatch):
    monkeypatch.setattr(keeper, "ALIVE", 0.0)
    monkeypatch.setattr(keeper, "SYNC_SECONDS", 0.02)
    ticks = itertools.count(1)
    monkeypatch.setattr(heartbeat, "now", lambda: {"alive": str(next(ticks))})
    with runs.start(local, "beating", "one") as run:
        deadline = time.monotonic() + 60
        while int(runs.get(local, run.id).tags["alive"]) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
    last = runs.get(local, run.id)
    assert int(last.tags["alive"]) >= 4
    time.sleep(0.2)
    assert runs.get(local, run.id).tags == last.tags


def test_all_runs_are_found_however_many(local, monkeypatch):
    monkeypatch.setattr(rows, "_PAGE", 2)
    for name in "abcde":
        with runs.start(local, "many", name):
            pass
    assert [row.name for row in runs.find(local, "many")] == list("edcba")
    assert [row.name for row in runs.find(local, "many", limit=3)] == list("edc")


@pytest.mark.parametrize("identity", ["spool_a'b", "spool_", "spool_" + "0" * 31, "spool_%27"])
def test_what_is_no_identity_of_a_run_is_not_asked_for(local, identity):
    with pytest.raises(InputError, match=f"run {identity} is not in"):
        runs.get(local, identity)
    assert runs.find(local, parent=identity) == []


def test_finding_and_missing(local):
    with runs.start(local, "finding", "one") as one:
        one.metrics({"mae": 0.1})
    with runs.start(local, "finding", "two") as two:
        two.metrics({"mae": 0.3})
    assert [row.id for row in runs.find(local, "finding")] == [two.id, one.id]
    assert [row.id for row in runs.find(local, "finding", limit=1)] == [two.id]
    assert runs.find(local, "findin") == []
    with pytest.raises(InputError, match="cannot search the runs of sqlite"):
        runs.find(local, "finding", parent="it's")
    with pytest.raises(InputError, match=f"unknown run 'x'.*{two.id}"):
        runs.get(local, "x")
    with pytest.raises(InputError, match="unknown file"):
        runs.download(local, one.id, "nothing.txt")
    with pytest.raises(InputError, match="no such file"), runs.start(local, "finding", "three") as three:
        three.artifact("missing.txt")


def test_data_set_digest_round_trip(store, tmp_path):
    attributes = {"digest": "d" * 64, "recipe": "r" * 64, "task": "hubbard", "samples": 12, "groups": 3}
    with runs.start(store, EXPERIMENT, "data") as run:
        datasets.log(run, attributes, tmp_path / "train.zarr")
        datasets.log(run, attributes | {"digest": "e" * 64}, tmp_path / "fresh.zarr", context="evaluation")
    inputs = {one.dataset.name: one for one in store.client.get_run(run.id).inputs.dataset_inputs}
    assert inputs["train"].dataset.digest == "d" * 36
    assert [(tag.key, tag.value) for tag in inputs["fresh"].tags] == [("mlflow.data.context", "evaluation")]
    assert json.loads(inputs["train"].dataset.profile) == attributes
    assert json.loads(inputs["train"].dataset.source)["uri"] == (tmp_path / "train.zarr").as_uri()
    tags = runs.get(store, run.id).tags
    assert (tags["data.digest"], tags["data.recipe"]) == ("d" * 64, "r" * 64)
    assert tags["data.evaluation.digest"] == "e" * 64
    with pytest.raises(InputError, match="no digest"), runs.start(store, EXPERIMENT, "data") as run:
        datasets.log(run, {"recipe": "r"}, tmp_path / "half.zarr")


def test_what_is_read_back_leaves_nothing_behind(store, tmp_path, start_script):
    (tmp_path / "note.txt").write_text("hello")
    with runs.start(store, EXPERIMENT, "tidy") as run:
        run.artifact(tmp_path / "note.txt", "notes")
    code = """
import os, sys, tempfile
from tracking import runs, store
found = runs.download(store.connect(sys.argv[1]), sys.argv[2], "notes")
assert (found / "note.txt").read_text() == "hello"
assert (runs.download(store.connect(sys.argv[1]), sys.argv[2], "notes/note.txt")).read_text() == "hello"
print(len(os.listdir(tempfile.gettempdir())))
"""
    aside = tmp_path / "aside"
    aside.mkdir()
    code = f"import tempfile; tempfile.tempdir = {str(aside)!r}\n{code}"
    process = start_script(code, store.uri, run.id, folder=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert int(out) == store.remote  # what lies on this machine is not even copied
    assert not list(aside.iterdir())
