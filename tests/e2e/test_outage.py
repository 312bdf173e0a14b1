"""Training and tuning where the tracking server was never there, through the command line."""

from __future__ import annotations

import json
import re

import pytest

from tracking import runs
from tracking.store import connect

AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
VALUES = "train.epochs=3;train.perturbation=clean"
VALUES += ";train.network=mlp;train.options={hidden: [16], dropout: 0}"
SMALL = ("--preset", "test", "--set", VALUES, "--json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("an outage")


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told(done):
    """The folder in the line that says what is left."""
    (line,) = [line for line in done.stderr.splitlines() if "send with: stm sync" in line]
    assert len([each for each in done.stderr.splitlines() if each.startswith("warning: ")]) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return re.search(r"send with: stm sync '?(.*?)'?$", line)[1]


def test_training_goes_on_and_arrives_later(run_stm, demo, folder):
    done = run_stm("train", "hubbard", "--data", str(demo.data), *SMALL, cwd=folder, **AWAY)
    away = answer(done)
    assert away["run_id"].startswith("spool_")
    left = told(done)
    assert away["link"] == f"stm sync {left}"
    assert left == str(folder / ".stm-spool")

    refused = run_stm("sync", left, cwd=folder, **AWAY)
    assert refused.returncode == 2
    assert "cannot reach the tracking store http://127.0.0.1:9" in refused.stderr
    sent = answer(run_stm("sync", left, "--to", "sqlite:///mlflow.db", "--json", cwd=folder))
    assert [one["state"] for one in sent["runs"]] == ["sent"]
    assert not (folder / ".stm-spool").exists()

    store = connect(f"sqlite:///{folder}/mlflow.db")
    row = runs.get(store, away["run_id"])
    assert (row.id, row.status, row.outcome) == (sent["runs"][0]["run_id"], "FINISHED", "complete")
    assert {key: row.metrics[key] for key in away["metrics"]} == pytest.approx(away["metrics"], rel=0)
    assert len(store.client.get_metric_history(row.id, "train_loss")) == 3
    assert runs.configuration(store, away["run_id"])["train"]["network"] == "mlp"
    assert (runs.download(store, away["run_id"], "bundle") / "model.json").is_file()


def test_a_search_goes_on_and_arrives_later(run_stm, demo, folder):
    words = (
        "tune",
        "hubbard",
        "--data",
        str(demo.data),
        "--trials",
        "2",
        *SMALL[:3],
        f"{VALUES};tune.epochs=3;tune.pruner=none",
        "--json",
    )
    done = run_stm(*words, cwd=folder, STM_SPOOL="kept", **AWAY)
    away = answer(done)
    left = told(done)
    assert left == str(folder / "kept")
    sent = answer(run_stm("sync", left, "--to", "sqlite:///mlflow.db", "--json", cwd=folder))
    assert [one["state"] for one in sent["runs"]] == ["sent"] * 3
    store = connect(f"sqlite:///{folder}/mlflow.db")
    rows = runs.find(store, parent=away["parent"])
    assert sorted(row.tags["trial"] for row in rows) == ["0", "1"]
    assert {row.outcome for row in rows} == {"complete"}
    assert runs.get(store, away["parent"]).metrics[f"best_{away['best']['metric']}"] == away["best"]["value"]
    assert runs.get(store, away["best"]["run_id"]).parent == rows[0].parent
