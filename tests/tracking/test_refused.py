"""What a store will never take is set aside, told, and asked for no more."""

from __future__ import annotations

import os

import pytest

from stm_models.errors import InputError
from tracking import liveness, runs, spool, syncing
from tracking.parcel import Parcel


def send(folder):
    return list(syncing.sync([folder], None))


def test_what_the_store_refuses_is_kept_and_told(tmp_path, local, capsys):
    with runs.start(local, "refused", "x") as run:
        run.params({"a": 1})
        run.metrics({"fine": 1.0}, 0)
        run.params({"a": 2, "b": 3})
        run._sink.append({"kind": "metrics", "time": 1, "step": 0, "values": {"not*allowed": 1.0, "also": 2.0}})
    assert "refuses metric not*allowed" in capsys.readouterr().err
    row = runs.get(local, run.id)
    assert (row.status, row.params, row.metrics) == ("FINISHED", {"a": "1", "b": "3"}, {"fine": 1.0, "also": 2.0})
    (kept,) = (spool.root() / "refused").iterdir()
    assert "not*allowed" in (kept / "refused.txt").read_text()


@pytest.mark.parametrize("where", ["local", "remote"])
def test_what_is_left_of_a_deleted_run_is_set_aside_and_told(request, capsys, where):
    opened = request.getfixturevalue(where)
    with runs.start(opened, "deleted runs", "x") as run:
        opened.client.delete_run(run.id)
        run.metrics({"a": 1.0}, 1)
        run._sink._sender.wait(run._sink._parcel, Parcel.is_done, 20)
        assert run._sink._parcel.blocked, "it may be restored before the end"
    assert "refuses what is left of the run: " in capsys.readouterr().err
    (kept,) = (spool.root() / "refused").iterdir()
    assert "active" in (kept / "refused.txt").read_text()
    assert not list(spool.root().glob("[0-9a-f]*[0-9a-f]"))
    opened.client.restore_run(run.id)
    (sent,) = send(kept)
    assert (sent.state, runs.get(opened, run.id).metrics) == ("sent", {"a": 1.0})


@pytest.mark.parametrize("who", ["stm sync", "the next command"])
def test_the_spool_of_a_deleted_run_is_taken_once(local, capsys, who):
    with runs.start(local, "deleted runs", "x") as run:
        pass
    local.client.delete_run(run.id)
    made = spool.Spool(
        {"time": 1, "store": local.location, "experiment": "deleted runs", "name": "x", "parent": None, "attach": None,
         "owner": liveness.identity(), "tags": {}}
    )  # fmt: skip
    made.append({"kind": "metrics", "time": 2, "step": 0, "values": {"late": 1.0}})
    made.append({"kind": "end", "status": "FINISHED", "tags": {}, "time": 3, "owner": liveness.identity()})
    ((_, begun),) = spool.read(made.folder, limit=1)
    spool.write_state(made.folder, {"offset": begun, "run": run.id, "store": local.location})
    os.close(made.lock)
    if who == "stm sync":
        (sent,) = send(spool.root())
        assert sent.state == "refused"
        assert "what is left of the run" in sent.refused[0]
        assert send(spool.root()) == []
    else:
        with runs.start(local, "deleted runs", "y"):
            pass
        assert f"run {run.id}: {local.location} refuses what is left" in capsys.readouterr().err
    assert "active" in (spool.root() / "refused" / made.id / "refused.txt").read_text()


def test_what_was_refused_is_known_to_who_sends_the_rest(local):
    with runs.start(local, "refused", "in two parts") as run:
        pass
    owner = liveness.identity()
    made = spool.Spool(
        {"time": 1, "store": local.location, "experiment": "refused", "name": "x", "parent": None, "attach": run.id,
         "owner": owner, "tags": {}}
    )  # fmt: skip
    made.append({"kind": "metrics", "time": 2, "step": 0, "values": {"not*allowed": 1.0}})
    os.close(made.lock)
    first = Parcel(made.folder, spool.claim(made.folder))
    while first.step(local):
        pass
    assert "not*allowed" in first.refused[0]
    first.release()
    spool.add(made.folder, {"kind": "end", "status": "FINISHED", "tags": {}, "time": 3, "owner": owner})
    (sent,) = send(made.folder)
    assert sent.state == "refused"
    assert "not*allowed" in (spool.root() / "refused" / made.folder.name / "refused.txt").read_text()


def test_a_deleted_experiment_is_refused_at_the_start(local):
    local.client.delete_experiment(local.experiment("deleted one"))
    with pytest.raises(InputError, match="is deleted; restore"), runs.start(local, "deleted one", "x"):
        pass
    assert not list(spool.root().glob("*"))
