"""What the comparison page knows of a search of two objectives."""

import numpy as np

from tracking import runs, study, trials
from tracking.store import connect
from tracking.ui import tuning
from tracking.ui.site import Site


def test_the_front_holds_the_trials_that_none_is_better_than_in_both(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    opened = study.create_study("both", study.beside(store), seed=1, direction=["maximize", "minimize"])
    values = np.random.default_rng(0).integers(0, 12, (40, 2)).astype(float)
    for one in values:
        opened.tell(opened.ask(), one.tolist())
    with runs.start(store, "hubbard", "search", tags={"study": "both"}) as parent:
        trials.own(opened, parent.id)
        parent.metrics({"best_r2": 1.0})
    found = tuning.read(Site(store), parent.id)
    signed = values * [-1, 1]
    beaten = [bool(((signed <= one).all(axis=1) & (signed != one).any(axis=1)).any()) for one in signed]
    assert sorted(found.front) == np.flatnonzero(~np.array(beaten)).tolist()
    assert 1 < len(found.front) < 40
    assert found.metrics == ["r2", "latency_ms"]
    assert {"history", "pareto"} <= set(tuning.plots(found))


def test_one_objective_has_no_front(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    opened = study.create_study("one", study.beside(store), seed=1)
    opened.tell(opened.ask(), 0.5)
    with runs.start(store, "hubbard", "search", tags={"study": "one"}) as parent:
        trials.own(opened, parent.id)
    found = tuning.read(Site(store), parent.id)
    assert not found.front
    assert "pareto" not in tuning.plots(found)


def test_without_a_study_the_runs_that_say_they_are_trials_are_those(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    with runs.start(store, "hubbard", "search", tags={"study": "lost"}) as parent:
        for trial in ("1", "first", "²", "0"):
            with runs.start(store, "hubbard", trial, parent=parent.id, tags={"trial": trial}) as run:
                run.metrics({"mae": 0.5})
    assert [one.number for one in tuning.read(Site(store), parent.id).trials] == [0, 1]


def test_a_trial_that_diverged_is_not_the_best(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    with runs.start(store, "hubbard", "search", tags={"study": "lost"}) as parent:
        for trial, value in enumerate((float("nan"), 0.5, -float("inf"), 0.1)):
            with runs.start(store, "hubbard", f"{trial}", parent=parent.id, tags={"trial": trial}) as run:
                run.metrics({"unseen_mae": value})
        parent.metrics({"best_unseen_mae": 0.1})
    assert tuning.read(Site(store), parent.id).best.number == 3


def test_a_study_of_the_same_name_is_somebody_elses(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    opened = study.create_study("shared", study.beside(store), seed=1)
    opened.tell(opened.ask(), 0.5)
    tags = {"study": "shared"}
    with runs.start(store, "hubbard", "theirs", tags=tags) as theirs:
        for trial, value in enumerate((0.3, 0.2)):
            with runs.start(store, "hubbard", f"{trial}", parent=theirs.id, tags={**tags, "trial": trial}) as run:
                run.metrics({"unseen_mae": value})
        theirs.metrics({"best_unseen_mae": 0.2})
    with runs.start(store, "hubbard", "mine", tags=tags) as mine:
        trials.own(opened, mine.id)
    with runs.start(store, "hubbard", "mine, away at its start", tags=tags) as late:
        trials.own(opened, f"spool_{runs.get(store, late.id).tags['stm.run']}")
    found = {
        name: tuning.read(Site(store), run.id) for name, run in (("theirs", theirs), ("mine", mine), ("late", late))
    }
    assert {name: (one.source, one.best.values) for name, one in found.items()} == {
        "theirs": ("the runs alone", (0.2,)), "mine": ("Optuna", (0.5,)), "late": ("Optuna", (0.5,)),
    }  # fmt: skip
