"""One line for several runs says of them only what holds for all."""

from __future__ import annotations

import csv
import io
import math
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from tracking import runs
from tracking.rows import RunRow, find
from tracking.snapshot import Snapshot
from tracking.store import connect
from tracking.ui.app import create_app
from tracking.ui.grouping import nested
from tracking.ui.table import View, build, to_csv
from tracking.ui.table_page import cell
from tracking.ui.values import Values

CODE = {"data.digest": "d", "git.commit": "c", "git.dirty": "False"}


def row(seed, seconds=1.0, status="FINISHED", metrics=None, **tags):
    start = datetime(2026, 1, seed + 1, tzinfo=UTC)
    params = {"train.seed": str(seed), "train.epochs": "3"}
    named = {key.replace("__", "."): text for key, text in tags.items()}
    return RunRow(f"r{seed}", "train", "hubbard", status, start, seconds, params, metrics or {}, CODE | named, None)


def table(*rows, **view):
    return build(Values(Snapshot(sorted(rows, key=lambda one: one.start, reverse=True), {})), View(seeds=True, **view))


def cells(found):
    assert len(found.lines) == 1
    return dict(zip(found.columns, found.lines[0].values, strict=True))


def test_a_line_of_several_runs_has_what_they_have_in_common():
    columns = ("outcome", "digest", "seconds", "gpu", "train.seed", "train.epochs", "start", "mae", "lost")
    rows = [
        row(0, 2.0, metrics={"mae": 0.1, "lost": float("nan")}, gpu="A", outcome="complete"),
        row(1, 4.0, metrics={"mae": 0.3, "lost": float("nan")}, gpu="B", outcome="failed"),
        row(2, 6.0, metrics={"lost": float("nan")}, gpu="B", outcome="failed"),
    ]
    shown = cells(table(*rows, columns=columns))
    assert math.isnan(shown.pop("lost"))
    assert shown.pop("mae") == (pytest.approx(0.2), pytest.approx(0.2**0.5 / 10**0.5), 2)
    assert shown == {
        "outcome": "2 failed, 1 complete", "digest": "d", "seconds": (4.0, 2.0, 3), "gpu": None, "train.seed": None,
        "train.epochs": "3", "start": None,
    }  # fmt: skip
    assert cell("seconds", (4.0, 2.0, 3)) == '<td class="n" title="3 runs">4.0 s ± 2.0 s</td>'
    (line,) = csv.DictReader(io.StringIO(to_csv(table(*rows, columns=columns))))
    assert (line["outcome"], line["gpu"], line["seconds"], line["seconds_std"]) == (
        "2 failed, 1 complete",
        "",
        "4.0",
        "2.0",
    )


def test_runs_of_other_code_are_another_training():
    for other in ({"git__commit": "e"}, {"git__dirty": "True"}, {"data__digest": "e"}):
        assert [line.below for line in table(row(0), row(1), row(2, **other)).lines] == [0, 2]


def test_they_are_ordered_by_what_is_shown():
    found = table(row(0), row(5), row(3, git__commit="e"), row(2, git__commit="f", outcome="zero"), sort="start")
    assert [line.run.id for line in found.lines] == ["r2", "r3", "r5"]
    rows = (row(0, gpu="A"), row(5, gpu="B"), row(3, gpu="C", git__commit="e"))
    assert [line.run.id for line in table(*rows, sort="gpu").lines] == ["r3", "r5"]
    assert [line.run.id for line in table(*rows, sort="gpu", descending=True).lines] == ["r3", "r5"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(math.inf, "inf ± inf"), (-math.inf, "-inf ± inf"), (math.nan, "0.1 ± 0"), (1e299, "5e+298 ± 7.1e+298")],
)
def test_a_value_beyond_all_numbers_leaves_every_page(tmp_path, value, words):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    for seed, one in enumerate((value, 0.1, value)[: 2 if math.isfinite(value) else 3]):
        with runs.start(store, "hubbard", f"seed {seed}") as run:
            run.params({"train": {"seed": seed, "lr": 0.1}})
            run.metrics({"val_mae": one}, 1)
            run.metrics({"val_mae": one}, 2)
    page = TestClient(create_app(store), base_url="http://127.0.0.1")
    assert words in page.get("/?seeds=1&c=val_mae").text
    assert page.get("/table.csv?seeds=1&c=val_mae").status_code == 200
    ids = [row.id for row in find(store, "hubbard")]
    for between in "~,":
        assert page.get(f"/compare?runs={between.join(ids)}").status_code == 200


def test_runs_below_themselves_are_shown():
    parents = {"a": "b", "b": "a", "c": "c", "d": "a", "e": "d", "f": "elsewhere", "g": "f"}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [RunRow(name, name, "x", "FINISHED", start, 1.0, {}, {}, {}, parent) for name, parent in parents.items()]
    found = {above: [row.id for row in below] for above, below in nested(rows).items()}
    assert found == {None: ["a", "b", "c", "f"], "a": ["d"], "d": ["e"], "f": ["g"]}
    lines = build(Values(Snapshot(rows, {})), View(opened=frozenset({"all"}))).lines
    assert sorted(line.run.id for line in lines) == sorted(parents)
    found = build(Values(Snapshot(rows, {})), View(q="name=e")).lines
    assert [line.run.id for line in found] == ["a", "d", "e", "b"]


@pytest.mark.parametrize("kind", ["seeds", "folds"])
def test_repetitions_are_called_what_they_are(tmp_path, kind):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    with runs.start(store, "hubbard", "train conv", tags={"repeats.kind": kind}) as parent:
        for number in range(2):
            with runs.start(store, "hubbard", f"{number}", parent=parent.id) as run:
                run.metrics({"mae": 0.1}, 1)
    text = TestClient(create_app(store), base_url="http://127.0.0.1").get(f"/compare?runs={parent.id}").text
    assert f">train conv (2 {kind})</a>" in text
