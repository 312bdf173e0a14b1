"""Over a server, whose histories are asked one by one, the pages say what they say over its database."""

from __future__ import annotations

from collections import Counter

import pytest
from starlette.testclient import TestClient

from tracking import registry, rows
from tracking.backend import Metric, MlflowException, RestException
from tracking.store import Store, connect
from tracking.ui import report
from tracking.ui.app import create_app

RUNS, SETS = 5, 110


class Asked:
    """The client of a store, as a server's, that counts what it is asked."""

    def __init__(self, client):
        self.client, self.count, self.down = client, Counter(), False

    def __getattr__(self, name):
        def call(*given, **named):
            self.count[name] += 1
            if self.down:
                raise MlflowException("API request failed with exception Max retries exceeded")
            try:
                return getattr(self.client, name)(*given, **named)
            except MlflowException as error:
                raise RestException({"error_code": error.error_code, "message": error.message}) from error

        return call


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A database and the same behind a server: runs of many metrics, whose last values are in another order."""
    local = connect(f"sqlite:///{tmp_path_factory.mktemp('stores')}/mlflow.db")
    experiment = local.experiment("hubbard")
    for number in range(RUNS):
        run = local.client.create_run(experiment, run_name=f"run {number}", tags={"task": "hubbard"}).info.run_id
        curves = {"val_mae": [0.5, 0.1 + number, 9.0 - number], "unseen_mae": [0.1 * number, 1.0 - 0.1 * number]}
        metrics = [Metric(key, value, step, step) for key, curve in curves.items() for step, value in enumerate(curve)]
        metrics += [Metric(f"set{one}.mae", float(one), 0, 0) for one in range(SETS)]
        local.client.log_batch(run, metrics=[*metrics, Metric("system/cpu", 1.0, 1, 1)])
        local.client.set_terminated(run)
    return local, Store("http://fake", Asked(local.client), None)


def client(store):
    return TestClient(create_app(store), base_url="http://127.0.0.1", raise_server_exceptions=False)


def ids(store):
    experiment = store.client.get_experiment_by_name("hubbard").experiment_id
    return {run.info.run_name: run.info.run_id for run in store.client.search_runs([experiment])}


@pytest.mark.parametrize("count", [2, RUNS])
def test_best_values_of_a_comparison(stores, count):
    local, remote = stores
    chosen = ",".join(one for name, one in sorted(ids(local).items())[:count])
    texts = [client(store).get(f"/compare?runs={chosen}").text.partition("Best values")[2] for store in stores]
    assert "0.1<span" in texts[0]
    assert texts[0] == texts[1]
    page = client(remote)
    remote.client.count.clear()
    page.get(f"/compare?runs={chosen}")
    # Of each of these runs both metrics with a history, and the one that is drawn once more.
    assert remote.client.count["get_metric_history"] == count * 3


@pytest.mark.parametrize(
    "query", ["q=unseen_mae%3C0.15&c=val_mae", "q=metric.unseen_mae%3C0.15&c=val_mae", "sort=unseen_mae&c=val_mae"]
)
def test_search_and_order_by_a_metric_that_is_not_shown(stores, query):
    found = [client(store).get(f"/table.csv?experiment=hubbard&{query}").text.splitlines() for store in stores]
    assert found[0] == found[1]
    assert "run 0," in "".join(found[0])


def test_the_report_takes_the_same_runs_for_the_best(stores):
    assert report.build(stores[0], "hubbard")[1]["runs"] == report.build(stores[1], "hubbard")[1]["runs"]


def test_the_run_page_has_the_best_value_too(stores):
    run = ids(stores[0])["run 0"]
    texts = [client(store).get(f"/runs/{run}").text for store in stores]
    assert "9 (best 0.1)" in texts[0]
    assert "9 (best 0.1)" in texts[1]


def test_the_best_of_a_metric_that_was_logged_without_steps(tmp_path):
    local = connect(f"sqlite:///{tmp_path}/mlflow.db")
    client_of = Asked(local.client)
    experiment = local.experiment("hubbard")
    for name, tags in (("loop", {}), ("evaluation", {"evaluated.run": "x"})):
        run = local.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        for number, value in enumerate([0.5, 0.1, 0.3] if name == "loop" else [0.2]):
            local.client.log_metric(run, "val_mae", value, timestamp=number)
            local.client.log_metric(run, "system/cpu", value, timestamp=number, step=number)
        local.client.set_terminated(run)
    stores = local, Store("http://fake", client_of, None)
    found = [client(store).get("/table.csv?c=val_mae&sort=val_mae").text for store in stores]
    assert found[0] == found[1]
    assert "loop,hubbard,0.1" in found[0]
    assert client_of.count["get_metric_history"] == 1


def test_a_history_that_cannot_be_read_is_no_last_value(stores):
    remote = stores[1]
    page, run = client(remote), ids(stores[0])["run 0"]
    assert page.get("/").status_code == 200
    remote.client.down = True
    try:
        answer = page.get(f"/compare?runs={run}")
    finally:
        remote.client.down = False
    assert answer.status_code == 503
    assert "The tracking store http://fake does not answer" in answer.text
    assert "reload this page" in answer.text
    assert page.get(f"/compare?runs={run}").status_code == 200


def test_a_server_that_is_gone_is_told_on_every_page(stores):
    page, run = client(stores[1]), ids(stores[0])["run 0"]
    stores[1].client.down = True
    try:
        for path in ("/", "/table.csv", "/compare", f"/compare?runs={run}", "/tuning", "/models", f"/runs/{run}"):
            answer = page.get(path)
            if path != "/compare":  # asks for nothing
                assert (answer.status_code, "does not answer" in answer.text) == (503, True), path
    finally:
        stores[1].client.down = False
    assert page.get("/runs/x").status_code == page.get("/?experiment=x").status_code == 404


def test_without_a_registry_there_are_no_badges_and_all_runs(stores, monkeypatch):
    def refused(*_):
        raise MlflowException("no registry here")

    monkeypatch.setattr(registry, "names", refused)
    answer = client(stores[1]).get("/")
    assert answer.status_code == 200
    assert "5 runs" in answer.text


def test_a_report_has_every_row(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = store.experiment("long")
    for number in range(120):
        store.client.create_run(experiment, run_name=f"run {number:03d}")
    html, about = report.build(store, "long")
    assert about["lines"] == 120
    assert all(f"run {number:03d}" in html for number in range(120))


def test_what_is_no_number_is_the_best_of_none(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = store.experiment("hubbard")
    values = {"0.5": 0.5, "0.1": 0.1, "nan": float("nan"), "-inf": -float("inf"), "0.3": 0.3}
    for name, value in values.items():
        run = store.client.create_run(experiment, run_name=name, tags={"study": "x"}).info.run_id
        store.client.log_batch(run, metrics=[Metric("val_mae", 1.0, 1, 1), Metric("unseen_robust_mae", value, 1, 0)])
        store.client.set_terminated(run)
    chosen = report.build(store, "hubbard")[1]["runs"]
    assert [rows.get(store, run).name for run in chosen[:3]] == ["0.1", "0.3", "0.5"]
    assert len(chosen) == 5
