"""What a forced promotion writes down; promotions of real models are in tests/e2e."""

from __future__ import annotations

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pipelines.promoting import promotion
from pipelines.promoting.held_out import HeldOut
from stm_models.errors import InputError
from stm_models.tasks.registry import get


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4711"), OSError("No username set")])
def test_a_user_without_a_name_forces_a_promotion_under_his_number(monkeypatch, error):
    done = []

    def nobody():
        raise error

    gate = {"name": "latency", "verdict": "failed", "reason": "slow"}
    fakes = {
        "_alone": lambda *_: nullcontext(),
        "_version_of": lambda *_: SimpleNamespace(version=2, tags={}),
        "_judge": lambda *_: {"gates": [gate]},
        "_crown": lambda *_: done.append("alias"),
        "judged_metric": lambda *_: "mae",
        "deleted": lambda *_: False,
        "attach": lambda *_: None,
        "runs": SimpleNamespace(get=lambda *_: SimpleNamespace(id="r", metrics={})),
        "models": SimpleNamespace(
            champion=lambda *_: None, version=lambda *_: None, tag_version=lambda *given: done.append(given[-1])
        ),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(promotion, name, fake)
    monkeypatch.setattr("getpass.getuser", nobody)
    result = promotion.promote(None, SimpleNamespace(name="hubbard"), "r", force="late")
    assert result["promoted"]
    assert result["forced"]
    alias, tags = done
    assert alias == "alias"
    assert tags["gate.forced_by"] == f"{os.getuid()}: late"


def test_a_file_without_intervals_says_that_none_were_judged():
    gate = promotion._coverage(None, None, SimpleNamespace(hits={}))
    assert gate.record()["verdict"] == "not judged"
    assert gate.reason == "the file has no intervals"


@pytest.mark.parametrize(("folds", "verdicts"), [("3", {"folds": "failed"}), ("0", {}), (None, {})])
def test_a_fold_is_refused(monkeypatch, folds, verdicts):
    fakes = {
        "_session": lambda *_: None,
        "held_out": lambda *_: HeldOut({}),
        "_with_baselines": lambda *_: {"mae": 1.0, "mean.mae": 2.0},
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(promotion, name, fake)
    row = SimpleNamespace(id="r", metrics={"mae": 1.0}, params={} if folds is None else {"split.folds": folds})
    found = promotion._judge(None, get("hubbard"), row, None, None, None, None, None)["gates"]
    assert {gate["name"]: gate["verdict"] for gate in found} == {**verdicts, "baselines": "passed"}
    assert ("--force WHY" in found[0]["reason"]) == bool(verdicts)


def test_a_deleted_run_is_not_promoted(monkeypatch):
    for name, fake in {
        "_alone": lambda *_: nullcontext(),
        "runs": SimpleNamespace(get=lambda *_: SimpleNamespace(id="r4711", metrics={})),
        "deleted": lambda store, run_id: run_id == "r4711",
    }.items():
        monkeypatch.setattr(promotion, name, fake)
    with pytest.raises(InputError, match=r"run r4711 is deleted: restore it \(mlflow runs restore --run-id r4711\)"):
        promotion.promote(None, SimpleNamespace(name="hubbard"), "r4711", force="it was good")


@pytest.fixture
def registry(monkeypatch):
    """Versions 1 (the champion of before) and 2 (the champion); what the alias moved to."""
    moved = []
    versions = {number: SimpleNamespace(version=number, run_id=f"run{number}", tags={}) for number in (1, 2)}
    versions[2].tags["champion.before"] = "1"
    for name, fake in {
        "_alone": lambda *_: nullcontext(),
        "_session": lambda *_: None,
        "_describe_anew": lambda *_: None,
        "deleted": lambda *_: False,
        "models": SimpleNamespace(
            champion=lambda *_: versions[2], version=lambda store, name, number: versions[number],
            set_alias=lambda store, name, alias, number: moved.append(number), tag_version=lambda *_: None,
        ),
    }.items():  # fmt: skip
        monkeypatch.setattr(promotion, name, fake)
    return moved


def test_going_back_to_a_model_whose_file_is_lost_is_refused(monkeypatch, registry):
    def lost(store, info):
        raise InputError(f"no file of version {info.version}")

    monkeypatch.setattr(promotion, "_session", lost)
    with pytest.raises(InputError, match="no file of version 1"):
        promotion.rollback(None, SimpleNamespace(name="hubbard"))
    assert registry == []


@pytest.mark.parametrize("gone", [False, True])
def test_going_back_to_a_model_whose_run_is_deleted_says_so(monkeypatch, registry, gone):
    monkeypatch.setattr(promotion, "deleted", lambda store, run_id: gone and run_id == "run1")
    found = promotion.rollback(None, SimpleNamespace(name="hubbard"))
    assert (found["version"], found["was"]) == (1, 2)
    assert registry == [1]
    assert found["reason"].startswith("version 2 was rolled back")
    assert ("run run1 of version 1 is deleted" in found["reason"]) == gone
