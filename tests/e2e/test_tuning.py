"""Searches through the command line: interrupted and killed, of several networks and objectives, and mistakes."""

from __future__ import annotations

import threading

import optuna
import pytest

import campaign_tune
from pipelines import executors
from pipelines.cli import main
from pipelines.learning import fitting
from support import outcomes
from tracking import runs, study
from tracking.store import connect

answer, refused = outcomes.answer, outcomes.refused

QUICK = "tune.epochs=3;tune.pruner=none;train.perturbation=clean"
QUICK += ";train.network=mlp;train.options={hidden: '32', dropout: 0}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture
def tune(demo, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(executors, "LocalExecutor", campaign_tune.Forked)

    def call(*arguments):
        capsys.readouterr()
        code = main(["tune", "hubbard", "--preset", "test", "--data", str(demo.data), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_an_interrupted_trial_goes_on_where_it_was(tune, folder, monkeypatch):
    whole = answer(tune("--set", QUICK, "--trials", "1", "--study", "whole", "--json"))
    epochs, update, report = [], fitting.Progress.update, optuna.Trial.report

    def count(self, count=1, note=""):
        update(self, count, note)
        epochs.extend([self.done] * self.label.startswith("train"))

    def interrupted(trial, value, step):
        report(trial, value, step)
        if epochs == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting.Progress, "update", count)
    monkeypatch.setattr(optuna.Trial, "report", interrupted)
    assert tune("--set", QUICK, "--trials", "1", "--study", "broken")[0] == 130
    assert len(list((folder / "checkpoints").glob("tune-*"))) == 1
    result = answer(tune("--set", QUICK, "--trials", "1", "--study", "broken", "--json"))
    assert epochs == [1, 2, 3]
    assert result["trials"] == {"complete": 1, "fail": 1}
    assert result["best"]["value"] == whole["best"]["value"]
    assert not list((folder / "checkpoints").glob("tune-*"))
    rows = [row for row in runs.find(connect(), "hubbard") if row.tags.get("study") == "broken"]
    trials = {row.name: row.outcome for row in rows if "trial" in row.tags}
    assert trials == {"trial-000": "killed", "trial-001": "complete"}
    curve = connect().client.get_metric_history(result["best"]["run_id"], "val_mae")
    assert sorted({point.step for point in curve}) == [1, 2, 3]


def test_the_network_is_a_choice_and_brings_its_own_options(tune):
    arguments = (
        "--model",
        "mlp,linear",
        "--set",
        "tune.epochs=1;tune.pruner=none;tune.sampler=random",
        "--trials",
        "6",
    )
    found = answer(tune(*arguments, "--study", "several", "--json"))
    trials = study.open_study("several", study.beside(connect())).trials
    networks = {trial.params["network"] for trial in trials}
    assert networks == {"mlp", "linear"}
    first = trials[0].params  # as without a search
    assert (first["network"], first["train.learning_rate"], first["mlp.hidden"]) == ("mlp", 2e-3, "256-64")
    for trial in trials:
        network = trial.params["network"]
        own = {name for name in trial.params if name.partition(".")[0] in ("mlp", "linear")}
        assert own == {name for name in own if name.startswith(f"{network}.")} != set()
        assert trial.user_attrs["train"]["network"] == network
        assert runs.get(connect(), trial.user_attrs["run_id"]).tags["network"] == network
    assert found["best"]["train"]["network"] in networks


def _kept(trial):
    """What of a trial a search of the network ``linear`` alone may choose."""
    return {item for item in trial.params.items() if item[0].partition(".")[0] in ("train", "linear")}


def test_error_against_latency_after_an_earlier_study_then_several_seeds(tune):
    both = "tune.objectives=[error, latency];tune.epochs=2;train.epochs=2"
    found = answer(
        tune("--model", "linear", "--set", both, "--trials", "3", "--from", "several", "--seeds", "2", "--json")
    )
    store = connect()
    storage = study.beside(store)
    earlier = study.open_study("several", storage).trials
    trials = study.open_study(found["study"], storage).trials
    for trial in trials:
        assert trial.user_attrs["from"] == "several"
        assert all(value > 0 for value in trial.values)
        assert any(_kept(past) == _kept(trial) & _kept(past) for past in earlier)
    front = {each["number"] for each in found["front"]}
    beaten = {
        one.number
        for one in trials
        for other in trials
        if other.values[0] <= one.values[0] and other.values[1] <= one.values[1] and other.values != one.values
    }
    assert front == {trial.number for trial in trials} - beaten
    row = runs.get(store, found["best"]["run_id"])
    assert trials[found["best"]["number"]].values == [row.metrics["unseen_robust_mae"], row.metrics["latency_ms"]]
    figures = {entry.path for entry in store.client.list_artifacts(found["parent"], "figures")}
    assert figures == {f"figures/{name}.png" for name in ("history", "parallel", "pareto")}
    retrained = runs.get(store, found["retrained"]["run_id"])
    assert [each["name"] for each in found["retrained"]["runs"]] == ["seed 0", "seed 1"]
    assert retrained.tags["study"] == found["study"]
    assert "mae_std" in retrained.metrics


def test_pruned_trials_are_seen_as_such(tune):
    # Half of the trials are worse than the median, four at the least are let be.
    settings = "tune.epochs=4;tune.sampler=random;tune.pruner=median"
    found = tune("--model", "linear", "--set", settings, "--trials", "9", "--json")
    result = answer(found)
    pruned = result["trials"]["pruned"]
    assert result["trials"] == {"complete": 9 - pruned, "pruned": pruned}
    assert 1 <= pruned <= 5
    assert found[2].count(": pruned") == pruned
    rows = runs.find(connect(), parent=result["parent"])
    assert len(rows) == 9
    assert sum((row.outcome, row.tags.get("trial.state")) == ("pruned", "PRUNED") for row in rows) == pruned
    figures = {entry.path for entry in connect().client.list_artifacts(result["parent"], "figures")}
    assert "figures/importances.png" in figures


def test_workers_that_are_killed_lose_nothing(tune, demo, folder):
    class Search:
        def __init__(self, arguments):
            self.code = None
            self.thread = threading.Thread(target=self.work, args=(arguments,), daemon=True)
            self.thread.start()

        def work(self, arguments):
            self.code = main(arguments)

        def poll(self):
            return None if self.thread.is_alive() else self.code

    counts = campaign_tune.campaign(
        folder,
        demo.data,
        5,
        begin=lambda _, arguments: Search(arguments),
        n_trials=2,
        groups=0,
        together=1,
        pause=0.3,
        epochs=40,
    )
    assert counts["worker"] >= 5
    assert counts["again"] + counts["given up"] > 0
    assert counts["same_weights"] == counts["searches"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "mlp,mpl"), ("unknown network 'mpl'", "did you mean 'mlp'")),
        (("--model", "mlp,mlp"), ("tune", "every network once")),
        (("--workers", "0"), ("--workers is 0", "at least 1")),
        (("--executor", "cluster"), ("unknown executor 'cluster'", "slurm")),
        (("--set", "tune.sampler=bayes"), ("sampler", "'tpe'", "'cmaes'")),
        (("--set", "tune.objectives=[latency]"), ("[error, latency]",)),
        (("--from", "nowhere"), ("unknown study", "'nowhere'")),
        (("--storage", "grpc://nowhere"), ("grpc://HOST:PORT",)),
        (("--storage", "mysql://u:secret@h/x"), ("cannot use", "mysql://u:***@h/x")),
    ],
)
def test_mistakes(tune, arguments, words):
    refused(tune("--set", "tune.epochs=1", *arguments), *words)
