"""The search of the table against a plain reading of it, whatever is typed."""

from __future__ import annotations

import contextlib
import fnmatch
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stm_models.errors import InputError
from tracking.rows import RunRow
from tracking.snapshot import Snapshot
from tracking.ui.query import keep, parse
from tracking.ui.text import plain_cell
from tracking.ui.values import Values, direction, task_of


def row(name, metrics=None, params=None, tags=None, experiment="hubbard"):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return RunRow(name, name, experiment, "FINISHED", start, 1.0, params or {}, metrics or {}, tags or {}, None)


ROWS = [
    row(
        "a",
        {"unseen_mae": 0.05, "loss": 2.0, "mild:2.mae": 0.05},
        {"train.learning_rate": "0.001", "train.network": "conv"},
    ),
    row(
        "b",
        {"unseen_mae": 0.3, "unseen.mild_mae": 1.0},
        {"train.learning_rate": "0.01"},
        {"network": "mlp", "data.digest": "4f1c99"},
    ),
    row("c d", {}, {"note": "two words = one"}, {"outcome": "failed", "data.digest": "77aa", "git.commit": "abc123"}),
]
VALUES = Values(Snapshot(ROWS, {"a": {"loss": (0.5, 9.0)}}))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a", "b", "c d"]),
        ("network=conv", ["a"]),
        ("network!=conv", ["b", "c d"]),
        ("unseen_mae<0.1", ["a"]),
        ("metric.unseen_mae>=0.3", ["b"]),
        ("metrics.unseen_mae=0.05", ["a"]),
        ("loss<0.6", ["a"]),  # its best value, not the last
        ("loss<0.5", []),
        ("learning_rate=1e-3", ["a"]),
        ("param.train.learning_rate>0.005", ["b"]),
        ("tag.data.digest=4f1c*", ["b"]),
        ("tag.data.digest=4f1c…", ["b"]),
        ("tag.data.digest=*1c*9", ["b"]),
        ("tag.data.digest!=4*", ["a", "c d"]),
        ("tag.data.digest~AA", ["c d"]),
        ("digest=4f1c*", ["b"]),
        ("commit=abc123", ["c d"]),  # a tag by its last part
        ("commit!=abc123", ["a", "b"]),
        ("outcome=failed", ["c d"]),
        ("-outcome=failed", ["a", "b"]),
        ('"two words"', ["c d"]),
        ('note="two words = one"', ["c d"]),
        ('-"two words" -mlp', ["a"]),
        ("MLP", ["b"]),
        ("unseen_mae<1 network~l", ["b"]),
        ("mild:2.mae<0.1", ["a"]),
        ("metric.mild:2.mae>=0.1", []),
        ("a:b", []),
    ],
)
def test_what_is_found(query, found):
    assert [one.name for one in keep(ROWS, query, VALUES)] == found


def test_many_stars_are_answered_at_once():
    long = row("a" * 2000)
    assert keep([long], f"name={'*' * 100}x", Values(Snapshot([long], {}))) == []
    assert keep([long], f"name={'a*' * 900}", Values(Snapshot([long], {}))) == [long]
    assert keep([long], " " * 100_000, Values(Snapshot([long], {}))) == [long]


@given(st.text("ab", max_size=8), st.text("ab*", max_size=8))
def test_stars_stand_for_any_text(name, pattern):
    one = row(name or "a")
    found = keep([one], f"name={pattern}", Values(Snapshot([one], {})))
    assert bool(found) is fnmatch.fnmatchcase(one.name, pattern)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('"two', "without an end"),
        ("unseen_mae<", "nothing after"),
        ("unseen_mae<small", "which is no number"),
        ("unsen_mae<0.1", "did you mean unseen_mae"),
        ("tag.nothing=1", "no metric, parameter or tag"),
        ("mild_mae=1", "no metric, parameter or tag"),  # of a metric the whole name
    ],
)
def test_what_is_wrong_is_said(query, words):
    with pytest.raises(InputError, match=words):
        keep(ROWS, query, VALUES)


@given(st.text(max_size=60))
def test_nothing_that_is_typed_breaks_it(query):
    with contextlib.suppress(InputError):
        assert all(one in ROWS for one in keep(ROWS, query, VALUES))


@given(
    st.sampled_from(["name", "unseen_mae", "train.learning_rate"]), st.text(max_size=20).filter(lambda s: '"' not in s)
)
def test_a_term_and_its_opposite_share_all_runs_among_them(key, text):
    try:
        both = [keep(ROWS, f'{sign}"{key}"="{text}"', VALUES) for sign in ("", "-")]
    except InputError:
        return
    assert sorted(one.name for one in both[0] + both[1]) == [one.name for one in ROWS]


def test_directions_are_the_tasks():
    hubbard, impurity = task_of(ROWS[0]), task_of(row("x", experiment="impurity"))
    for name, larger in {"unseen_mild.mae": False, "r2_U": True, "kernel_ridge.unseen_r2": True, "train_loss": False,
                         "val_mae": False, "best_epoch": None}.items():  # fmt: skip
        assert direction(hubbard, name) is larger, name
    for name, larger in {
        "f1_std": True,
        "without_core": True,
        "without_rings": False,
        "error_px": False,
        "count": None,
    }.items():
        assert direction(impurity, name) is larger, name
    assert direction(None, "Accuracy") is True
    assert direction(None, "val_loss") is False
    assert direction(None, "x") is None


def test_terms():
    (term,) = parse('-"a b"<="3"')
    assert (term.negated, term.key, term.comparison, term.value) == (True, "a b", "<=", "3")


def test_a_number_is_no_formula():
    for text in ("-0.5", "+3", "-1e-3", "-inf", "- no", "-2+3", "=1", "@x", "\t1", "\r-1"):
        number = text in ("-0.5", "+3", "-1e-3", "-inf")
        assert plain_cell(text) == (text if number else f"'{text}")
    assert plain_cell(-0.5) == "-0.5"
