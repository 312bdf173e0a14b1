"""The team's store as its recipe starts it: a real MLflow server with logins before a real PostgreSQL."""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from stm_models.errors import InputError
from support import delivered, mlflow_server, postgresql_server
from tracking import datasets, runs, spool, store, syncing

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
TEAM = ROOT / "tracking" / "team"
PASSWORD = "a long one for the tests"


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """The command and the environment of the recipe's server, with a database, folders and a port of this machine."""
    folder = tmp_path_factory.mktemp("team")
    recipe = yaml.safe_load((TEAM / "compose.yaml").read_text())["services"]["server"]
    (folder / "auth").mkdir()
    settings = (TEAM / "basic_auth.ini").read_text().replace("sqlite:////auth/", f"sqlite:///{folder}/auth/")
    (folder / "basic_auth.ini").write_text(settings)
    with postgresql_server.serve() as database:
        options = {}
        for word in recipe["command"][2:]:
            name, _, value = word.partition("=")
            options[name] = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
        given = {
            "--backend-store-uri": database, "--artifacts-destination": str(folder / "files"), "--host": "127.0.0.1",
            "--workers": "1",
        }  # fmt: skip
        assert given.keys() <= options.keys()
        options |= given
        del options["--port"], options["--host"]
        server = mlflow_server.Server(
            folder, backend=options.pop("--backend-store-uri"),
            options=[f"{name}={value}" if value else name for name, value in options.items()],
            MLFLOW_AUTH_CONFIG_PATH=str(folder / "basic_auth.ini"), MLFLOW_AUTH_ADMIN_USERNAME="admin",
            MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY="not a secret here",
        )  # fmt: skip
        server._command[-1:] = [server._command[-1].replace(":5000", f":{server.port}")]
        try:
            yield server.start()
        finally:
            server.kill()


@pytest.fixture
def member(team, monkeypatch, tmp_path):
    """Somebody with a login who is no administrator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STM_SPOOL_KEEP", "1")
    from mlflow.server import get_app_client

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    client = get_app_client("basic-auth", tracking_uri=team.uri)
    try:
        client.get_user("ada")
    except Exception:
        client.create_user(username="ada", password="another long one")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another long one")
    return "ada"


def record(opened, tmp_path):
    with runs.start(opened, "team", "by a member") as run:
        run.config({"train": {"epochs": 3}})
        datasets.log(run, {"digest": "d" * 64, "samples": 3}, tmp_path / "x.zarr")
        for step in range(2500):
            run.metrics({"loss": 1 / (step + 1)}, step)
        run.json({"a": 1}, "panel/index.json")
    return run


def test_recording_through_login_database_and_file_store(team, member, tmp_path):
    opened = store.recording(team.uri)
    assert opened.away is None
    run = record(opened, tmp_path)
    assert not run.id.startswith("spool_")
    (path,) = delivered.kept(spool.root()).values()
    counts = delivered.check(path, opened)
    assert (counts["metrics"], counts["files"]) == (2500, 2)
    assert len(list((team.folder / "files").rglob("index.json"))) == 1
    assert opened.client.get_experiment_by_name("team").artifact_location.startswith("mlflow-artifacts:")


def test_who_has_no_login_reads_nothing_and_loses_nothing(team, member, tmp_path, monkeypatch):
    request = urllib.request.Request(f"{team.uri}/api/2.0/mlflow/experiments/search?max_results=1")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 401
    request.add_header("Authorization", "Basic " + base64.b64encode(b"ada:another long one").decode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(InputError, match="cannot use the tracking store"):
        store.connect(team.uri)
    away = store.recording(team.uri)
    run = record(away, tmp_path)
    assert run.id.startswith("spool_")
    from tracking.sender import _senders

    for one in _senders.values():
        for parcel in one.left():
            parcel.release()
            parcel.done = True
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another long one")
    (sent,) = syncing.sync([spool.root()])
    assert sent.state == "sent"
    (path,) = delivered.kept(spool.root()).values()
    assert delivered.check(path, store.connect(team.uri))["metrics"] == 2500


def test_the_recipe_is_pinned_and_keeps_to_this_machine():
    recipe = yaml.safe_load((TEAM / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for service in recipe.values() for port in service.get("ports", []))
    pattern = re.search(r"grep -oE '(.*?)'", (TEAM / "Dockerfile").read_text())[1]
    found = re.findall(pattern, (ROOT / "requirements.lock").read_text(), re.M)
    assert sorted(found) == ["flask-wtf", "mlflow", "psycopg", "psycopg-binary"]
