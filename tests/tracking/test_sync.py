"""What was recorded while the store was away arrives once, whoever sends it and however often."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from pipelines import sync as command
from stm_models.errors import InputError
from support import delivered
from tracking import datasets, liveness, rows, runs, sender, spool, store, syncing

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _keep(monkeypatch):
    monkeypatch.setenv("STM_SPOOL_KEEP", "1")
    yield
    # What this process has locked would stay so to its end.
    for one in sender._senders.values():
        if one.store.uri == NOWHERE:
            for parcel in one.left():
                parcel.done = True


def record(tmp_path, away, name="away", parent=None, steps=300):
    """Record a run with something of each kind in it and leave it to others."""
    with runs.start(away, "spooled", name, parent=parent, tags={"a": "b"}) as run:
        run.config({"train": {"epochs": 3, "rate": 1e-5}, "long": "x" * 9000})
        datasets.log(run, {"digest": "d" * 64, "recipe": "r" * 64, "samples": 5}, tmp_path / "train.zarr")
        for step in range(steps):
            run.metrics({"loss": 1 / (step + 1), "nan": float("nan")}, step)
        run.json({"some": [1, 2]}, "panel/index.json")
        (tmp_path / "folder" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "sub" / "data.bin").write_bytes(bytes(range(256)) * 500)
        run.artifact(tmp_path / "folder", "bundle")
        assert (run.file("bundle") / "sub" / "data.bin").stat().st_size == 128_000
        run.json({"some": "newer"}, "panel/index.json")
    return run


def leave(run):
    """Give the spool of a run free, as the end of its process does."""
    (one,) = [each for each in sender._senders.values() if each.store.uri == NOWHERE]
    for parcel in one.left():
        if run.id.endswith(parcel.id):
            parcel.release()
            parcel.done = True


def send(*folders, to):
    return list(syncing.sync([Path(folder) for folder in folders], to))


def test_a_run_that_never_saw_its_store_arrives_whole(tmp_path, local, capsys):
    away = store.recording(NOWHERE)
    assert "warning: cannot reach" in capsys.readouterr().err
    assert away.away
    began = time.monotonic()
    run = record(tmp_path, away)
    assert time.monotonic() - began < 30
    assert run.id.startswith("spool_")
    assert run.link == f"stm sync {spool.root()}"
    with pytest.raises(InputError, match="cannot reach"):
        runs.get(away, run.id)
    with pytest.raises(InputError, match=r"not in .* yet: send it"):
        runs.get(local, run.id)
    leave(run)
    (sent,) = send(spool.root(), to=local.uri)
    assert (sent.state, sent.refused) == ("sent", [])
    (path,) = delivered.kept(spool.root()).values()
    assert delivered.check(path, local) >= Counter(metrics=600, params=3, files=3, inputs=1)
    # Its first id goes on to name it.
    assert runs.get(local, run.id).id == sent.run_id
    assert json.loads(runs.download(local, run.id, "panel/index.json").read_text()) == {"some": "newer"}
    runs.existing(local, run.id).tags({"later": "yes"})
    assert runs.get(local, sent.run_id).tags["later"] == "yes"
    assert send(spool.root(), to=local.uri) == []


def test_nested_runs_find_their_parent_in_any_order(tmp_path, local):
    away = store.recording(NOWHERE)
    with runs.start(away, "nested", "parent") as parent:
        child = record(tmp_path, away, "child", parent.id, steps=2)
    leave(child)
    (waiting,) = send(spool.root() / child.id.removeprefix("spool_"), to=local.uri)
    assert waiting.state == "waits"
    assert waiting.run_id is None
    leave(parent)
    found = {sent.name: sent for sent in send(spool.root(), to=local.uri)}
    assert {sent.state for sent in found.values()} == {"sent"}
    assert runs.get(local, child.id).parent == found["parent"].run_id
    assert [row.id for row in runs.find(local, parent=parent.id)] == [found["child"].run_id]
    for path in delivered.kept(spool.root()).values():
        delivered.check(path, local)


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_whatever_was_acknowledged_or_not_it_arrives_once(tmp_path, local, monkeypatch, after):
    """The reply of one call after the other is lost, and with it this process's knowledge."""
    run = record(tmp_path, store.recording(NOWHERE), steps=5)
    leave(run)
    folder = spool.root() / run.id.removeprefix("spool_")
    write, calls = spool.write_state, []

    def lost(*arguments):
        calls.append(arguments)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(spool, "write_state", lost)
    with pytest.raises(KeyboardInterrupt):
        send(folder, to=local.uri)
    monkeypatch.setattr(spool, "write_state", write)
    (sent,) = send(folder, to=local.uri)
    assert sent.state == "sent"
    delivered.check(delivered.kept(spool.root())[folder.name], local)
    assert len(rows.located(local, folder.name)) == 1


def test_killed_and_concurrent_senders(tmp_path, local, start_script):
    away = store.recording(NOWHERE)
    for number in range(3):
        leave(record(tmp_path, away, f"run {number}", steps=1500))
    code = (
        "import sys\nfrom pathlib import Path\nfrom tracking.syncing import sync\n"
        "assert {sent.state for sent in sync([Path(sys.argv[1])], sys.argv[2])} <= {'sent'}"
    )
    words = (str(spool.root()), local.uri)
    first = start_script(code, *words, folder=tmp_path)
    deadline = time.monotonic() + 60
    while not list(spool.root().glob("*/state.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(list(spool.root().glob("[0-9a-f]*"))) >= 1, "it was killed too late"
    second = start_script(code, *words, folder=tmp_path)
    seen = {"sent"}
    while second.poll() is None:
        seen |= {sent.state for sent in send(spool.root(), to=local.uri)}
        time.sleep(0.05)
    assert second.returncode == 0, second.communicate()
    assert seen == {"sent"}
    kept = delivered.kept(spool.root())
    assert len(kept) == 3
    for path in kept.values():
        assert delivered.check(path, local)["metrics"] == 3000


def test_a_copy_of_a_run_in_progress_is_sent_as_far_as_it_is(tmp_path, local):
    away = store.recording(NOWHERE)
    with runs.start(away, "copied", "long") as run:
        run.metrics({"a": 1.0}, 0)
        own = spool.root() / run.id.removeprefix("spool_")
        copy = tmp_path / "copy" / own.name
        shutil.copytree(own, copy)
        (early,) = send(copy, to=local.uri)
        assert early.state == "running"
        assert runs.get(local, early.run_id).status == "RUNNING"
        run.metrics({"a": 2.0}, 1)
    leave(run)
    shutil.copytree(own, copy, dirs_exist_ok=True)  # as rsync does: the copy's own notes stay
    (late,) = send(copy.parent, to=local.uri)
    assert (late.state, late.run_id) == ("sent", early.run_id)
    delivered.check(copy.parent / "sent" / own.name, local)


def test_the_rest_of_a_run_goes_to_a_file_named_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    away = store.recording(NOWHERE)
    with runs.start(away, "copied", "to a file") as run:
        own = spool.root() / run.id.removeprefix("spool_")
        copy = tmp_path / "copy" / own.name
        shutil.copytree(own, copy)
        (early,) = send(copy, to="sqlite:///here.db")
        run.metrics({"a": 2.0}, 1)
    leave(run)
    shutil.copytree(own, copy, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"here.db already"):
        send(copy, to="sqlite:///there.db")
    (late,) = send(copy, to="sqlite:///here.db")
    assert (early.state, late.state, late.run_id) == ("running", "sent", early.run_id)


def test_a_killed_client_is_closed_from_its_spool(tmp_path, local, start_script):
    code = (
        "import os, sys\nfrom tracking import runs, store\n"
        "with runs.start(store.recording(sys.argv[1]), 'killed', 'client') as run:\n"
        "    for step in range(100): run.metrics({'a': step / 7}, step)\n"
        "    print(run.id, flush=True); os.kill(os.getpid(), 9)"
    )
    process = start_script(code, NOWHERE, folder=tmp_path)
    run_id = process.stdout.readline().strip()
    process.wait()
    (sent,) = send(tmp_path / ".stm-spool", to=local.uri)
    assert sent.state == "sent"
    row = runs.get(local, run_id)
    assert (row.status, row.outcome, row.metrics["a"]) == ("KILLED", "killed", 99 / 7)
    delivered.check(delivered.kept(tmp_path / ".stm-spool")[run_id.removeprefix("spool_")], local)


def test_the_next_command_sends_and_closes_what_a_killed_one_left(tmp_path, local, start_script, monkeypatch):
    code = (
        "import os, sys\nfrom tracking import runs, store\n"
        "opened = store.connect(sys.argv[1])\n"
        "with runs.start(opened, 'killed', 'client') as run:\n"
        "    opened.client.log_batch = None\n"
        "    for step in range(100): run.metrics({'a': step / 7}, step)\n"
        "    run.json({'a': 1}, 'late.json')\n"
        "    print(run.id, flush=True); os.kill(os.getpid(), 9)"
    )
    process = start_script(code, local.uri, folder=tmp_path)
    run_id = process.stdout.readline().strip()
    process.wait()
    assert runs.get(local, run_id).status == "RUNNING"
    runs.bury(local, "killed")
    row = runs.get(local, run_id)
    assert (row.status, row.outcome) == ("KILLED", "killed")
    assert len(local.client.get_metric_history(run_id, "a")) == 100
    assert json.loads(runs.download(local, run_id, "late.json").read_text()) == {"a": 1}
    assert not list(tmp_path.glob(".stm-spool/[0-9a-f]*"))


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_taken_up_by_another_is_not_closed_by_what_the_first_left(local, finished):
    gone = liveness.identity().rpartition("/")[0] + "/0"
    with runs.start(local, "taken", "first") as first:
        pass
    made = spool.Spool(
        {"time": 1, "store": local.location, "experiment": "taken", "name": "x", "parent": None, "attach": first.id,
         "owner": gone, "tags": {"process": gone}}
    )  # fmt: skip
    made.append({"kind": "metrics", "time": 2, "step": 0, "values": {"late": 1.0}})
    spool.write_state(made.folder, {"offset": made.size // 2, "run": first.id, "store": local.location})
    (_, begun), *_ = spool.read(made.folder, limit=1)
    spool.write_state(made.folder, {"offset": begun, "run": first.id, "store": local.location})
    os.close(made.lock)
    with runs.start(local, "taken", "", resume=first.id):
        if not finished:
            (sent,) = send(made.folder, to=None)
            row = runs.get(local, first.id)
            assert (row.status, row.metrics) == ("RUNNING", {"late": 1.0})
    if finished:
        (sent,) = send(made.folder, to=None)
    assert sent.state == "sent"
    row = runs.get(local, first.id)
    assert (row.status, row.outcome, row.metrics) == ("FINISHED", "complete", {"late": 1.0})


def test_a_spool_that_cannot_be_sent_keeps_no_other_back(tmp_path, local):
    away = store.recording(NOWHERE)
    for name in ("lost", "fine"):
        leave(record(tmp_path, away, name, steps=2))
    lost, fine = sorted(spool.root().glob("[0-9a-f]*"), key=lambda folder: spool.read(folder, limit=1)[0][0]["time"])
    spool.write_state(lost, {"offset": 0, "run": None, "store": "sqlite:////nowhere/old.db"})
    found = []
    sending = syncing.sync([lost, fine], local.uri)
    found.append(next(sending))
    with pytest.raises(InputError, match=r"in sqlite:////nowhere/old.db already"):
        next(sending)
    assert [(sent.name, sent.state) for sent in found] == [("fine", "sent")]
    assert lost.is_dir()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_spool_that_may_not_be_written_is_no_spool_that_somebody_sends(tmp_path, local, monkeypatch, capsys, number):
    away = store.recording(NOWHERE)
    for name in ("protected", "mine"):
        leave(record(tmp_path, away, name, steps=2))
    protected, _ = sorted(spool.root().glob("[0-9a-f]*"), key=lambda each: spool.read(each, limit=1)[0][0]["time"])
    claim = spool.claim

    def claimed(folder):
        if folder == protected:
            raise OSError(number, os.strerror(number), str(folder / "lock"))
        return claim(folder)

    monkeypatch.setattr(spool, "claim", claimed)
    sending = syncing.sync([spool.root()], local.uri)
    assert next(sending).name == "mine"
    with pytest.raises(InputError, match=rf"{protected.name} cannot be taken: {os.strerror(number)}; copy it to"):
        next(sending)
    capsys.readouterr()
    with runs.start(local, "beside one that is protected", "x"):
        pass
    assert f"{protected.name} cannot be taken" in capsys.readouterr().err


def test_addresses(tmp_path, local, monkeypatch):
    run = record(tmp_path, store.recording("http://me:secret@127.0.0.1:9"), steps=1)
    for one in sender._senders.values():
        for parcel in one.left():
            if run.id.endswith(parcel.id):
                parcel.release()
                parcel.done = True
    folder = spool.root() / run.id.removeprefix("spool_")
    assert "secret" not in (folder / "log.jsonl").read_text()
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI to it with its password"):
        send(folder, to=None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot reach .* http://me:\*\*\*@127"):
        send(folder, to=None)
    (path,) = spool.read(folder, limit=1)
    spool.write_state(folder, {"offset": path[1], "run": "x", "store": "http://elsewhere"})
    with pytest.raises(InputError, match="is in http://elsewhere already"):
        send(folder, to=local.uri)
    with pytest.raises(InputError, match="no folder"):
        command.run(type("Args", (), {"folder": [str(tmp_path / "none")], "to": None}))


@pytest.mark.parametrize(
    ("kill", "told"),
    [
        ("spool.sha256 = lambda path: end()", []),
        (
            "append = spool.Spool.append; spool.Spool.append = lambda *given: (append(*given), end())",
            ["x.json: it was not written to its end, or changed since"],
        ),
    ],
)
def test_a_file_that_a_killed_client_was_replacing_is_sent_as_it_was(tmp_path, local, start_script, kill, told):
    code = (
        "import os, sys\nfrom tracking import runs, spool, store\n"
        "with runs.start(store.recording(sys.argv[1]), 'replaced', 'client') as run:\n"
        "    run.json({'x': 1}, 'x.json')\n"
        "    end = lambda: os.kill(os.getpid(), 9)\n"
        f"    {kill}\n"
        "    run.json({'x': 2}, 'x.json')\n"
    )
    start_script(code, NOWHERE, folder=tmp_path).wait()
    (sent,) = send(tmp_path / ".stm-spool", to=local.uri)
    assert json.loads(runs.download(local, sent.run_id, "x.json").read_text()) == {"x": 1}
    assert (sent.state, sent.refused) == ("refused" if told else "sent", told)


def test_a_file_that_is_not_copied_yet_is_waited_for(tmp_path, local):
    away = store.recording(NOWHERE)
    with runs.start(away, "copied", "early") as run:
        run.json({"x": 1}, "x.json")
        run.metrics({"a": 1.0})
        own = spool.root() / run.id.removeprefix("spool_")
        copy = tmp_path / "copy" / own.name
        shutil.copytree(own, copy, ignore=shutil.ignore_patterns("x.json"))
        (early,) = send(copy, to=local.uri)
        assert (early.state, early.refused) == ("waits", ["its file x.json is not there yet"])
    leave(run)
    shutil.copytree(own, copy, dirs_exist_ok=True)
    (late,) = send(copy, to=local.uri)
    assert (late.state, late.refused) == ("sent", [])
    delivered.check(copy.parent / "sent" / own.name, local)


def test_a_spool_that_is_copied_and_sent_twice_is_kept_twice(tmp_path, local):
    away = store.recording(NOWHERE)
    run = record(tmp_path, away, steps=3)
    leave(run)
    identity = run.id.removeprefix("spool_")
    for kept in ("sent", "sent-2", "sent-3"):
        shutil.copytree(spool.root() / identity, tmp_path / "copy" / identity)
        (sent,) = send(tmp_path / "copy", to=local.uri)
        assert sent.state == "sent"
        delivered.check(tmp_path / "copy" / kept / identity, local)
