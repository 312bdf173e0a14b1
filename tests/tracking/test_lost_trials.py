"""A trial whose worker dies is found, run again and given up in the end, and its run is closed."""

from __future__ import annotations

import subprocess
import sys
import time

import optuna
import pytest

from support import searches
from tracking import liveness, runs, study, trials

WORKER = """
import sys, time
from tracking import liveness, store, study, trials
liveness.identity = lambda: ""  # as of another machine: only its heartbeats tell
def objective(trial, run):
    trial.suggest_float("x", 0, 1)
    print(run.id, flush=True)
    time.sleep(600)
opened = store.connect(sys.argv[1])
trials.run_trials(study.create_study("killed", seed=1, heartbeat=1), objective, 3, store=opened,
                 experiment="study", parent=sys.argv[2])
"""


def test_killed_worker_loses_nothing(local, parent, tmp_path, start_script):
    worker = start_script(WORKER, local.uri, parent, folder=tmp_path)
    assert worker.stdout is not None
    lost = worker.stdout.readline().strip()
    worker.kill()
    worker.wait()
    opened = study.create_study("killed", seed=2, heartbeat=1)
    assert searches.states(opened) == ["running"]
    start = time.monotonic()
    searches.run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 3, local, parent)
    assert time.monotonic() - start < 120
    assert searches.states(opened)[0] == "fail"
    assert searches.states(opened).count("complete") == 3
    first, *others = opened.trials
    assert any(trial.params == first.params for trial in others), "the lost trial is run again"
    assert (runs.get(local, lost).status, runs.get(local, lost).outcome) == ("KILLED", "killed")


def test_trial_lost_before_its_first_sign_of_life(local, parent):
    opened = study.create_study("early", seed=1)
    with pytest.warns(UserWarning, match="Heartbeat"):
        opened.ask()
    searches.run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 2, local, parent)
    assert searches.states(opened) == ["fail", "complete", "complete"]


def test_two_who_run_a_lost_trial_again_count_it_once(local, parent):
    opened = study.create_study("twice", seed=1)
    for _ in range(2):
        opened.add_trial(
            optuna.create_trial(
                state=optuna.trial.TrialState.WAITING, params={"x": 0.5},
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
                system_attrs={"retry_history": [7]},
            )
        )  # fmt: skip
    searches.run(opened, lambda trial, run: trial.suggest_float("x", 0, 1), 3, local, parent)
    assert searches.states(opened) == ["complete", "fail", "complete", "complete"]
    assert [trial.params["x"] == 0.5 for trial in opened.trials if trial.params] == [True, True, False, False]


def test_a_dead_worker_of_this_machine_is_found_at_once_and_its_trial_goes_on(local, parent, monkeypatch):
    dead = subprocess.run(
        [sys.executable, "-c", "from tracking import liveness; print(liveness.identity())"],
        cwd=study.__file__.rpartition("/tracking/")[0], capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert liveness.gone(dead)
    assert not liveness.gone(liveness.identity())
    assert not liveness.gone("another.machine/1/1")
    assert not liveness.gone("")
    opened = study.create_study("dead", seed=1, heartbeat=600)
    seen = []

    def objective(trial, run):
        seen.append((trial.number, trials.origin(opened.trials[trial.number]), trial.suggest_float("x", 0, 1)))
        if trial.number == 0:
            trial.report(3.0, 1)
            trial.set_user_attr("worker", dead)
            raise SystemExit  # neither told nor failed
        return seen[-1][2]

    left = []
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_end", lambda sink, _: left.append(sink))
        with pytest.raises(SystemExit):
            searches.run(opened, objective, 2, local, parent)
    assert searches.states(opened) == ["running"]
    searches.run(opened, objective, 2, local, parent)
    assert searches.states(opened) == ["fail", "complete", "complete"]
    assert [number[:2] for number in seen] == [(0, 0), (1, 0), (2, 2)]
    assert seen[1][2] == seen[0][2] != seen[2][2]
    assert opened.trials[1].intermediate_values == {1: 3.0}
    assert runs.get(local, opened.trials[0].user_attrs["run_id"]).outcome == "killed"
    assert runs.get(local, opened.trials[1].user_attrs["run_id"]).tags["trial.origin"] == "0"
    for sink in left:
        sink.end("KILLED", {})  # else it is waited for when the tests end


def test_a_trial_is_given_up_when_workers_keep_dying_before_anything_new(local, parent):
    opened = study.create_study("deadly", seed=1)

    def objective(trial, run):
        past = opened.trials[trial.number]
        if trials.origin(past) == 0:
            if len(past.intermediate_values) < 2:
                trial.report(1.0, len(past.intermediate_values))
            raise KeyboardInterrupt
        return 1.0

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            searches.run(opened, objective, 1, local, parent)
    # Twice with something new, twice without: three deaths in a row.
    searches.run(opened, objective, 1, local, parent)
    assert searches.states(opened) == ["fail"] * 4 + ["complete"]
    assert [trial.user_attrs.get("deaths") for trial in opened.trials] == [None, 1, 1, 2, None]


def test_with_several_objectives_a_trial_that_gets_on_is_not_given_up(local, parent):
    opened = study.create_study("slowly", seed=1, direction=["minimize", "minimize"])

    def objective(trial, run):
        epoch = trials.reported(opened.trials[trial.number]) + 1
        trials.note_epoch(trial, epoch)
        if epoch < 6:
            raise KeyboardInterrupt
        return 1.0, 1.0

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            searches.run(opened, objective, 1, local, parent)
    searches.run(opened, objective, 1, local, parent)
    assert searches.states(opened) == ["fail"] * 5 + ["complete"]
    assert trials.origin(opened.trials[-1]) == 0


def test_with_several_objectives_a_trial_that_never_gets_further_is_given_up(local, parent):
    opened = study.create_study("nowhere near", seed=1, direction=["minimize", "minimize"])
    epochs = iter([3, 2, 3])  # the second one went on from an earlier checkpoint

    def objective(trial, run):
        if (epoch := next(epochs, None)) is None:
            return 1.0, 1.0
        trials.note_epoch(trial, epoch)
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            searches.run(opened, objective, 1, local, parent)
    searches.run(opened, objective, 1, local, parent)
    assert searches.states(opened) == ["fail"] * 3 + ["complete"]
    assert trials.origin(opened.trials[-1]) == 3


def test_runs_that_nobody_works_on_are_closed(local, parent):
    opened = study.create_study("settled", seed=1)
    searches.run(opened, lambda trial, run: 1.0, 1, local, parent)
    trials.own(opened, parent)
    local.client.set_tag(parent, "process", liveness.identity().rpartition("/")[0] + "/0")
    tags = {"mlflow.parentRunId": parent, "study": "settled"}
    made = {}
    for name, number in (("orphan of a finished trial", 0), ("told nobody", 1), ("alive", 2)):
        made[name] = local.client.create_run(local.experiment("study"), tags={**tags, "trial": str(number)}).info.run_id
    opened.ask()  # lost before it began, but its run says complete
    local.client.set_tag(made["told nobody"], "outcome", "complete")
    local.client.set_terminated(made["told nobody"])
    opened.ask()
    opened._storage.set_trial_user_attr(opened.trials[2]._trial_id, "claimed", 2)
    opened._storage.set_trial_user_attr(opened.trials[2]._trial_id, "worker", liveness.identity())
    trials.settle(opened, local, "study")
    found = {name: (runs.get(local, run).status, runs.get(local, run).outcome) for name, run in made.items()}
    assert found == {
        "orphan of a finished trial": ("KILLED", "killed"),
        "told nobody": ("KILLED", "killed"),
        "alive": ("RUNNING", "running"),
    }
    assert runs.get(local, parent).outcome == "killed"
    assert searches.states(opened) == ["complete", "fail", "running", "waiting"]


def test_a_tag_of_others_is_no_trial(local, parent):
    opened = study.create_study("annotated", seed=1)
    searches.run(opened, lambda trial, run: 1.0, 1, local, parent)
    trials.own(opened, parent)
    left = {"mlflow.parentRunId": parent, "trial": "0"}
    orphan = local.client.create_run(local.experiment("study"), tags=left).info.run_id
    note = local.client.create_run(local.experiment("study"), tags={**left, "trial": "first"}).info.run_id
    trials.settle(opened, local, "study")
    assert (runs.get(local, orphan).status, runs.get(local, note).status) == ("KILLED", "RUNNING")
