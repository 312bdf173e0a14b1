"""Trainings through the command line: several seeds, folds, fitted again, several processes, and what can go wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.learning import fitting, recording, training_data
from pipelines.promoting import held_out
from pipelines.promoting.publishing import best_run
from stm_models.tasks.registry import get
from stm_models.training import learner
from support import outcomes
from tracking import models, runs
from tracking.store import connect

answer, refused = outcomes.answer, outcomes.refused

VALUES = "train.epochs=3;train.network=mlp;train.options={hidden: [16], dropout: 0};train.perturbation=clean"
SMALL = ("--preset", "test", "--set", VALUES)


@pytest.fixture
def train(command, demo):
    def call(*arguments, data=None):
        return command("train", "hubbard", "--data", str(data or demo.data), *arguments)

    return call


def interrupt_at(monkeypatch, updates):
    """Interrupt at the so-manieth report of an epoch."""
    original, seen = fitting.Progress.update, []

    def update(self, count=1, note=""):
        original(self, count, note)
        seen.append(count)
        if self.label.startswith("train") and len(seen) == updates:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting.Progress, "update", update)


def test_seeds_are_one_run_with_nested_runs_and_an_interrupted_one_goes_on(train, monkeypatch):
    # What calibrates is not the preset's: resuming keeps that, too.
    own = (*SMALL[:3], SMALL[3] + ";calibrate.states=0")
    alone = answer(train(*own, "--json"))
    whole = answer(train(*own, "--seeds", "2", "--json"))
    assert [each["name"] for each in whole["runs"]] == ["seed 0", "seed 1"]
    assert whole["runs"][0]["metrics"] == alone["metrics"] != whole["runs"][1]["metrics"]
    store = connect()
    parent = runs.get(store, whole["run_id"])
    children = runs.find(store, "hubbard", parent=parent.id)
    assert {row.id for row in children} == {each["run_id"] for each in whole["runs"]}
    for key in ("mae", "unseen_r2", "kernel_ridge.mae"):
        values = [row.metrics[key] for row in children]
        assert parent.metrics[f"{key}_mean"] == pytest.approx(np.mean(values), rel=1e-12)
        assert parent.metrics[f"{key}_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-15)
    best = min(whole["runs"], key=lambda each: each["metrics"]["mae"])
    assert whole["best"] == {"name": best["name"], "run_id": best["run_id"], "value": best["metrics"]["mae"]}
    assert parent.tags["best"] == best["name"]

    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)  # in the second epoch of the second seed
        code, _, err = train(*own, "--seeds", "2")
    assert code == 130
    run_id = err.split("--resume ")[1].split()[0]
    begun = {row.name: row for row in runs.find(store, "hubbard", parent=run_id)}
    assert {name: row.status for name, row in begun.items()} == {"train mlp seed 0": "FINISHED",
                                                                "train mlp seed 1": "KILLED"}  # fmt: skip
    resumed = answer(train("--resume", run_id, "--json"))
    assert resumed["run_id"] == run_id
    assert resumed["metrics"] == whole["metrics"]
    assert {each["run_id"] for each in resumed["runs"]} == {row.id for row in begun.values()}
    assert {row.status for row in runs.find(store, "hubbard", parent=run_id)} == {"FINISHED"}
    kept = runs.get(store, begun["train mlp seed 0"].id)
    assert kept.start == begun["train mlp seed 0"].start
    assert kept.seconds == begun["train mlp seed 0"].seconds
    assert not any(list(Path("checkpoints").glob(f"{row.id}*")) for row in begun.values())
    out = train("--resume", run_id)[1]
    assert "2 seeds of mlp" in out
    assert f"best mae on validation {best['metrics']['mae']:.4g}: {best['name']}" in out


def test_an_interrupted_run_goes_on_with_its_own_data_and_task(train, command, demo, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        code, _, err = train(*SMALL)
    assert code == 130
    run_id = err.split("--resume ")[1].split()[0]
    before = runs.get(connect(), run_id).tags
    other = Path("demo-output/fresh-unseen.zarr").absolute()
    refused(train("--resume", run_id, data=other), str(other), f"was trained on {before['data.digest'][:12]}")
    kept = ("data.path", "data.digest", "training.recipe")
    assert {key: runs.get(connect(), run_id).tags[key] for key in kept} == {key: before[key] for key in kept}
    refused(command("train", "impurity", "--data", str(demo.data), "--resume", run_id), "is of task 'hubbard'")
    assert answer(train("--resume", run_id, "--json"))["run_id"] == run_id


def test_what_is_wrong_is_told_before_states_are_simulated_for_it(train, monkeypatch):
    def simulated(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr(recording, "calibration_samples", simulated)
    refused(train(*SMALL, "--set", "train.on_the_fly=true"), "train.on_the_fly is true, but task hubbard cannot draw")
    if not torch.cuda.is_available():
        refused(train(*SMALL, "--set", "train.device=cuda"), "device 'cuda' was asked for but there is none")


def test_folds_are_by_state_and_none_becomes_champion(train, demo):
    from pipelines.settings import SplitConfig

    found = answer(train(*SMALL, "--folds", "3", "--json"))
    assert found["best"] is None
    store, groups = connect(), []
    for number, each in enumerate(found["runs"]):
        row = runs.get(store, each["run_id"])
        assert (row.params["split.folds"], row.params["split.fold"]) == ("3", str(number))
        parts = fitting.load_parts(demo.data, get("hubbard"), SplitConfig(unseen_fraction=0.3, folds=3, fold=number))
        held, trained = (set(part.coordinates["group"]) for part in (parts.validation, parts.train))
        assert not held & trained
        groups += sorted(held)
        assert held | trained == set(parts.samples.coordinates["group"]) - set(parts.unseen.coordinates["group"])
    assert len(set(groups)) == len(groups) == 54 - len(set(parts.unseen.coordinates["group"]))
    values = [each["metrics"]["mae"] for each in found["runs"]]
    assert found["metrics"]["mae"] == {
        "mean": pytest.approx(np.mean(values)),
        "std": pytest.approx(np.std(values, ddof=1)),
    }
    assert best_run(store, get("hubbard")).id not in {each["run_id"] for each in found["runs"]}


def test_fitted_again_is_judged_on_what_it_does_not_know(train, demo):
    alone = answer(train(*SMALL, "--json"))
    again = answer(train(*SMALL[:3], SMALL[3] + ";train.refit=true", "--json"))
    same = {key: value == alone["metrics"][key] for key, value in again["metrics"].items()}
    # Validation metrics are of the model before, which does not know those samples.
    assert {key for key, value in same.items() if value} - {"coverage", "false_alarms"} == {"mae", "rmse", "r2"}
    store, task = connect(), get("hubbard")
    row = runs.get(store, again["run_id"])
    assert row.params["train.refit"] == "true"
    assert "refit_train_loss" in row.metrics
    assert not list(Path("checkpoints").glob(f"{row.id}*"))

    # What promotion judges on, without exporting.
    champion = models.champion(store, "stm-hubbard")
    recorded = training_data.training_data(store, row)
    parts = recorded.parts(demo.data)
    known = recorded.known(parts)
    assert len(known) == 108 - len(parts.unseen)
    held = held_out.held_out(store, task, row, champion, demo.data)
    assert {len(part) for part in held.sets.values()} == {108 - len(known)}
    assert not held.problem
    everything = SMALL[3] + ";train.refit=true;split.unseen_fraction=0"
    row = runs.get(store, answer(train(*SMALL[:3], everything, "--json"))["run_id"])
    held = held_out.held_out(store, task, row, champion, demo.data)
    assert not held.sets
    assert "fitted to all samples" in held.problem


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")
def test_two_processes_make_one_run_with_the_curve_of_one(train, demo, clean):
    alone = answer(train(*SMALL, "--json"))
    store = connect()
    before = {row.id for row in runs.find(store, "hubbard")}
    # No name is looked up, no other network interface taken than the machine's own.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    torchrun += ["--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "pipelines", "train", "hubbard", "--data", str(demo.data), *SMALL, "--json"],
        cwd=demo.folder, env=clean | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        text=True, capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one object: the other process says nothing
    assert {row.id for row in runs.find(store, "hubbard")} - before == {together["run_id"]}
    curves = [
        [metric.value for metric in store.client.get_metric_history(run_id, "train_loss")]
        for run_id in (alone["run_id"], together["run_id"])
    ]
    assert len(curves[0]) == 3
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)


def test_a_loss_that_becomes_nan_ends_with_one_line(train):
    # Not in the first epoch, after which there is a checkpoint to go on from.
    wild = SMALL[3] + ";train.repeats=1;train.learning_rate=1e6;train.schedule=constant;train.clip_norm=0"
    wild += ";train.options.activation=relu"
    err = refused(train(*SMALL[:3], wild), "NaN or infinite in epoch", "batch", "(step ", "learning rate 1e+06")
    run_id = err.split("--resume ")[1].split()[0]
    assert runs.get(connect(), run_id).outcome == "failed"
    refused(train("--resume", run_id, "--preset", "paper"), "--preset is 'paper'", "preset 'test'", "leave it out")


def test_out_of_memory_ends_with_one_line(train, monkeypatch):
    def applied(config, model, **named):
        def fail(x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nProcess 1 has ...")

        return fail

    monkeypatch.setattr(learner, "applied", applied)
    err = refused(train(*SMALL), "out of memory on cpu with 8 samples in a batch", "lower train.batch_size")
    assert err.count("warning: out of memory") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seeds", "1"), ["--seeds is 1", "at least 2"]),
        (("--folds", "0"), ["--folds is 0", "at least 2"]),
        (("--folds", "200"), ["200 folds", "never split"]),
        (("--set", "split.folds=3;split.fold=3"), ["fold", "3 folds"]),
        (("--set", "train.optimiser=sgd"), ["optimiser", "'adamw' or 'adam'"]),
        (("--set", "train.refit=true;train.on_the_fly=true"), ["train.refit", "train.on_the_fly"]),
        (("--resume", "0123", "--seeds", "2"), ["--resume", "--seeds"]),
        (("--resume", "0123", "--seed", "5"), ["--resume", "--seed"]),
    ],
)
def test_what_cannot_be_asked_for(train, arguments, words):
    refused(train("--preset", "test", *arguments), *words)
