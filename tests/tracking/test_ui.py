from __future__ import annotations

import importlib.metadata
import re

import pytest
from starlette.testclient import TestClient

from stm_models.files import sha256
from tracking import models, runs
from tracking.store import connect
from tracking.ui.app import create_app

HOSTILE = "<script>alert(1)</script>\"'{{ 7919*7907 }}"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Three runs of one search, a model, and a run whose every name is an attack."""
    from matplotlib.figure import Figure

    folder = tmp_path_factory.mktemp("ui")
    store = connect(f"sqlite:///{folder}/mlflow.db")
    ids = {}
    with runs.start(store, "hubbard", "search") as parent:
        for name, mae in (("middle", 0.2), ("best", 0.1), ("worst", 0.3)):
            with runs.start(store, "hubbard", name, parent=parent.id, tags={"network": f"net-{name}"}) as run:
                run.metrics({"mae": mae, "zeta": 1.0})
                run.figure(Figure(), "figures/parity.png")
                run.json({"a": 1}, "panel/index.json")
            ids[name] = run.id
        ids["search"] = parent.id
    with runs.start(store, HOSTILE, HOSTILE, tags={"note": HOSTILE, "data.digest": HOSTILE}) as run:
        run.params({"text": HOSTILE})
    ids["hostile"] = run.id
    return store, ids


@pytest.fixture
def page(filled):
    return TestClient(create_app(filled[0]), base_url="http://127.0.0.1")


def _order(text, names=("middle", "best", "worst")):
    return [name for name in re.findall(r'href="/runs/\w+">([^<]+)<', text) if name in names]


def test_table_shows_runs_nested_with_their_metrics(page, filled):
    text = page.get("/?experiment=hubbard").text
    assert _order(text, ("search", "middle", "best", "worst")) == ["search"]
    assert 'aria-expanded="false"' in text
    text = page.get(f"/?experiment=hubbard&open={filled[1]['search']}").text
    assert _order(text, ("search", "middle", "best", "worst")) == ["search", "worst", "best", "middle"]
    assert text.count('class="depth1"') == 3
    assert 'aria-expanded="true"' in text
    assert ">mae</a>" in text
    assert ">zeta</a>" in text
    assert "net-best" in text
    assert "alert(1)" not in text.partition("<table>")[2]


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("sort=mae", ["best", "middle", "worst"]),
        ("sort=mae&desc=1", ["worst", "middle", "best"]),
        ("sort=network", ["best", "middle", "worst"]),
        ("sort=none", ["worst", "best", "middle"]),
        ("q=NET-BEST", ["best"]),
        ("q=mae%3E%3D0.2+network%3Dnet-*+-worst", ["middle"]),
        ("q=0123-nothing", []),
    ],
)
def test_sorting_and_filtering(page, query, order):
    text = page.get(f"/?experiment=hubbard&open=all&{query}").text
    assert _order(text) == order
    assert ("search" in _order(text, ("search",))) == bool(order), "a match keeps its parent"


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A store of more runs than a page begins with."""
    store = connect(f"sqlite:///{tmp_path_factory.mktemp('long')}/mlflow.db")
    experiment = store.experiment("long")
    for number in range(130):
        run = store.client.create_run(experiment, run_name=f"run {number:03d}").info.run_id
        store.client.log_metric(run, "mae", float(number))
    return store


def test_a_long_table_begins_with_its_first_rows_and_has_the_way_to_the_others(long):
    page = TestClient(create_app(long), base_url="http://127.0.0.1")
    names = re.compile(r'href="/runs/\w+">(run \d+)<')
    first = page.get("/?experiment=long&sort=mae&desc=1").text
    assert names.findall(first) == [f"run {number:03d}" for number in range(129, 29, -1)]
    assert "130 runs" in first
    link, words = re.search(r'<a href="([^"]+)" data-more id="more">([^<]+)</a>', first).groups()
    assert words == "Show the other 30 rows"
    whole = page.get(link.replace("&amp;", "&")).text
    assert names.findall(whole) == [f"run {number:03d}" for number in range(129, -1, -1)]
    assert "data-more" not in whole
    assert re.search(r'href="[^"]*rows=all[^"]*" data-live id="by-1"', whole), "what was opened stays open"
    assert len(page.get("/table.csv?experiment=long").text.splitlines()) == 131


def test_a_metrics_column_has_no_parameter_of_its_name(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = store.experiment("clash")
    for name in ("measured", "configured"):
        run = store.client.create_run(experiment, run_name=name).info.run_id
        store.client.log_param(run, "train.precision", "fp32")
        if name == "measured":
            store.client.log_metric(run, "precision", 0.75)
    page = TestClient(create_app(store), base_url="http://127.0.0.1")
    text = page.get("/?experiment=clash&c=precision").text
    assert ">0.75</td>" in text
    assert "fp32" not in text.partition("<tbody>")[2]
    assert page.get("/?experiment=clash&c=train.precision").text.count("<td>fp32</td>") == 2
    assert _order(page.get("/?experiment=clash&q=precision%3Dfp32").text, ("measured", "configured")) == ["configured"]


def test_unknown_experiment_is_named(page):
    answer = page.get("/?experiment=hubard")
    assert answer.status_code == 404
    assert "did you mean &#39;hubbard&#39;" in answer.text


def test_champion_has_a_badge(page, filled, model_file):
    store, _ = filled
    with runs.start(store, "badges", "train") as run:
        models.log_onnx(run, model_file, sha256(model_file), {})
    models.set_alias(store, "stm-badge", "champion", models.register(store, "stm-badge", run.id))
    for path in ("/?experiment=badges", f"/runs/{run.id}"):
        assert '<span class="badge">champion · stm-badge 1</span>' in page.get(path).text


def test_the_card_of_a_version_is_its_description(filled, model_file, monkeypatch):
    store, ids = filled
    models.log_onnx(runs.existing(store, ids["middle"]), model_file, sha256(model_file), {})
    number = models.register(store, "stm-described", ids["middle"])
    models.describe_version(store, "stm-described", number, "# stm-described version 1")
    monkeypatch.setattr(store.client, "list_artifacts", None)  # no file is looked for
    text = TestClient(create_app(store), base_url="http://127.0.0.1").get("/models/stm-described").text
    assert f"Model card of version {number}" in text
    assert "# stm-described version 1" in text


def test_everything_hostile_is_escaped(page, filled):
    for path in (
        "/",
        f"/runs/{filled[1]['hostile']}",
        f"/?q={HOSTILE}",
        f"/?experiment={HOSTILE}",
        f"/runs/{HOSTILE}",
    ):
        answer = page.get(path)
        assert answer.text.count("<script") == answer.text.count('<script src="/live.js" defer></script>') == 1
        assert "&lt;script&gt;" in answer.text or answer.status_code == 404
        assert str(7919 * 7907) not in answer.text


def test_every_answer_is_locked_down(page, filled):
    for path in (
        "/",
        "/style.css",
        "/live.js",
        "/tuning",
        "/models",
        "/compare",
        "/nowhere",
        f"/runs/{filled[1]['best']}",
        "/runs/x",
    ):
        headers = page.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert page.post("/").status_code == 405
    assert page.get("/nowhere").status_code == page.get("/runs/x").status_code == 404


def test_run_page_shows_its_pictures_and_files(page, filled):
    run_id = filled[1]["best"]
    text = page.get(f"/runs/{run_id}").text
    source = f"/runs/{run_id}/files/figures/parity.png"
    assert f'src="{source}"' in text
    assert "panel/index.json" in text
    assert filled[1]["search"] in text
    answer = page.get(source)
    assert answer.headers["content-type"] == "image/png"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name",
    [
        "panel/index.json",
        "figures",
        "figures/none.png",
        "figures/../figures/parity.png",
        "..%2f..%2f..%2fsecret.png",
        "%2e%2e/%2e%2e/%2e%2e/secret.png",
        "/figures/parity.png",
        "figures//parity.png",
        "figures%5cparity.png",
        "figures/parity.png%00",
    ],
)
def test_only_listed_pictures_are_served(page, filled, name):
    store, ids = filled
    root = store.artifacts.removeprefix("file://")
    with open(f"{root}/../secret.png", "wb") as secret:
        secret.write(b"\x89PNG secret")
    path = f"/runs/{ids['best']}/files/{name}"
    answer = page.send(page.build_request("GET", f"http://127.0.0.1{path}"))
    if answer.status_code == 200:
        assert name == "figures/../figures/parity.png", "resolved by the client itself"
    else:
        assert answer.status_code == 404
    assert b"secret" not in answer.content


@pytest.mark.parametrize("served", ["true", "false"])
def test_in_mlflows_server_the_files_are_those_that_it_hands_out(tmp_path, monkeypatch, served):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    ids = []
    for place in ("mlflow-artifacts:/7", "mlflow-artifacts:/../outside"):
        experiment = store.client.create_experiment(f"in {len(ids)}", artifact_location=place)
        ids.append(store.client.create_run(experiment).info.run_id)
        folder = tmp_path / "files" / place.partition("/")[2] / ids[-1] / "artifacts" / "a"
        folder.mkdir(parents=True)
        (folder / "x.txt").write_text("whole")
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store.uri)
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", served)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", (tmp_path / "files").as_uri())
    (entry,) = importlib.metadata.entry_points(group="mlflow.app", name="stm-compare")
    server = TestClient(entry.load()(), base_url="http://127.0.0.1:5000")
    for run, reached in zip(ids, (served == "true", False), strict=True):
        answer = server.get(f"/compare/runs/{run}")
        assert answer.status_code == 200
        assert ("a/x.txt" in answer.text) is reached
        assert ("They cannot be listed" in answer.text) is not reached
        file = server.get(f"/compare/runs/{run}/files/a/x.txt?download=1")
        assert (file.status_code, file.text == "whole") == ((200, True) if reached else (404, False))


def test_it_can_be_a_part_of_mlflows_server(filled, monkeypatch):
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", filled[0].uri)
    (entry,) = importlib.metadata.entry_points(group="mlflow.app", name="stm-compare")
    server = TestClient(entry.load()(), base_url="http://127.0.0.1:5000")
    text = server.get("/compare/").text
    assert 'href="/compare/style.css"' in text
    assert 'action="/compare/compare"' in text
    assert server.get("/compare/live.js").headers["content-type"].startswith("text/javascript")
    assert server.get(f"/compare/runs/{filled[1]['best']}").status_code == 200
    assert server.get(f"/compare/compare?runs={filled[1]['best']}").status_code == 200
    assert server.get("/compare/nowhere").status_code == 404
    assert server.get("/health").text == "OK"
    assert server.get("/compare/", headers={"Host": "evil.example"}).status_code == 403
