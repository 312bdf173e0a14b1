from __future__ import annotations

import multiprocessing
import sqlite3
import time
from pathlib import Path

import pytest

from stm_models.errors import InputError
from tracking import registry, runs
from tracking.passwords import redact
from tracking.store import Store, connect, missing, patience
from tracking.study import beside, create_study


def _create(barrier) -> None:
    barrier.wait()
    connect().experiment("hubbard")


def test_two_processes_create_one_store(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_create, args=(barrier,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = connect()
    assert list(store.experiments().values()) == ["hubbard"]
    assert store.location == f"sqlite:///{tmp_path}/mlflow.db"
    assert not list(tmp_path.glob("*.new*"))


def test_files_of_a_sqlite_store_live_beside_it(local):
    experiment = local.client.get_experiment(local.experiment("hubbard"))
    beside = Path(local.uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert experiment.artifact_location == beside.as_uri()


def test_environment_names_the_store(local, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local.uri)
    assert connect().uri == local.uri
    assert not (tmp_path / "mlflow.db").exists()


def test_looking_for_a_store_makes_nothing(tmp_path, monkeypatch, local):
    assert missing() == tmp_path / "mlflow.db"
    assert missing("sqlite:///elsewhere/runs.db") == tmp_path / "elsewhere" / "runs.db"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").touch()
    assert missing() == tmp_path / "mlflow.db", "an empty file is no store yet"
    assert missing("http://127.0.0.1:9") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local.uri)
    assert missing() is None


def test_a_store_that_is_there_is_opened_without_its_lock(local):
    lock = Path(local.uri.removeprefix("sqlite:///") + ".lock")
    lock.unlink(missing_ok=True)
    connect(local.uri)
    assert not lock.exists()


def test_experiment_is_made_once(store):
    assert store.experiment("once") == store.experiment("once")


def test_deleted_experiment_is_explained(local):
    local.client.delete_experiment(local.experiment("gone"))
    with pytest.raises(InputError, match=r"'gone' is deleted; restore"):
        local.experiment("gone")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nonsense://host", "unknown scheme 'nonsense'"),
        ("./mlruns", "plain folder"),
        ("file:///somewhere", "plain folder"),
        ("sqlite://", "names no file"),
        ("sqlite:///corrupt.db", "no readable SQLite file"),
        ("sqlite:///foreign.db", "belongs to another program"),
        ("sqlite:///folder", "no file that you may write"),
        ("sqlite:///corrupt.db/mlflow.db", "cannot write to"),
        ("http://127.0.0.1:9", "cannot reach"),
        ("http://[::1", "no address"),
        ("postgresql://me:secret@[x/runs", "no address"),
        ("sqlite:///a\0b.db", "no address"),
        ("postgresql://me:secret@127.0.0.1:9/runs", "cannot reach"),
    ],
)
def test_unusable_store_is_refused_at_once(uri, said, tmp_path):
    (tmp_path / "corrupt.db").write_bytes(b"no database at all" * 100)
    (tmp_path / "folder").mkdir()
    with sqlite3.connect(tmp_path / "foreign.db") as foreign:
        foreign.execute("CREATE TABLE recipes (name TEXT)")
    before = (tmp_path / "foreign.db").read_bytes()
    start = time.monotonic()
    with pytest.raises(InputError, match=said) as caught:
        connect(uri)
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (tmp_path / "foreign.db").read_bytes() == before


def test_server_that_is_not_mlflow(tmp_path, start_script):
    code = (
        "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    server = start_script(code, folder=tmp_path)
    assert server.stdout is not None
    with pytest.raises(InputError, match="no MLflow server"):
        connect(f"http://127.0.0.1:{int(server.stdout.readline())}")


def test_links(local, remote):
    assert local.run_link("0" * 32) == f"mlflow ui --backend-store-uri {local.uri}"
    run = remote.client.create_run(remote.experiment("links"))
    link = f"{remote.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert remote.run_link(run.info.run_id) == link


def test_password_is_hidden():
    assert redact("postgresql://me:secret@host:5/x") == "postgresql://me:***@host:5/x"
    assert Store("http://me:secret@host", None, None).location == "http://me:***@host"


@pytest.mark.parametrize(
    "address",
    [
        *(f"postgresql://me:se{sign}cret@host/x" for sign in "/#?[@"),
        "postgresql://me@work.org:secret@host/x",
        "postgresql://host/x?user=me&password=secret",
        "postgresql://host:5432/x?password=s@secret&sslmode=require",
        "--storage=postgresql://me:secret@host/x",
    ],
)
def test_a_password_is_hidden_wherever_a_database_takes_one(address):
    assert "cret" not in redact(address)
    assert redact(address).startswith(address.partition(":")[0])
    assert "host" in redact(address)
    assert redact(redact(address)) == redact(address)


@pytest.mark.parametrize(
    "address", ["sqlite:////data/a:b@c/x.db", "postgresql://me@host:5432/x", "http://host:5000", "models:/NAME@ALIAS"]
)
def test_an_address_without_a_password_stays_as_it_is(address):
    assert redact(address) == address


@pytest.mark.parametrize("name", ["a 'b' \"c\"", "50%", "%41", "is it?", "#1 & ; [e] {f} $HOME", "größe ☃", "-a"])
def test_any_folder_holds_a_store(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    store = connect()
    with runs.start(store, "odd", "one") as run:
        run.json({"a": 1}, "b/c.json")
    assert store.folder == folder
    assert runs.download(connect(store.uri), run.id, "b/c.json").is_relative_to(folder / "mlartifacts")
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlflow.db.lock", "mlartifacts"}
    assert create_study("odd", beside(store), seed=0).study_name == "odd"
    assert (folder / "optuna.db").is_file()
    assert (folder / "optuna.db.lock").is_file()


@pytest.mark.parametrize("text", ["soon", "nan", "-1", "1e30", "inf"])
def test_a_wait_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("STM_SPOOL_WAIT", text)
    with pytest.raises(InputError, match=f"STM_SPOOL_WAIT is '{text}': expected seconds, from 0 to 86400"):
        patience(1.0)


def test_how_long_a_store_is_waited_for(monkeypatch):
    monkeypatch.setenv("STM_SPOOL_WAIT", " 0.5 ")
    assert patience(3.0) == 0.5
    monkeypatch.setenv("STM_SPOOL_WAIT", "")
    assert patience(3.0) == 3.0


def test_models_beyond_the_first_page_are_seen(local):
    added = [f"page-m{number:03}" for number in range(103)]
    for name in added:
        local.client.create_registered_model(name)
    # other tests of this store may have registered models of their own
    assert [name for name in registry.names(local) if name.startswith("page-")] == added
    with pytest.raises(InputError, match=r"unknown registered model 'page-m103'.*page-m102"):
        registry.versions(local, "page-m103")
