"""Plots of predictions: each run is judged by what it logged itself."""

from types import SimpleNamespace

import numpy as np
import pytest

from stm_models.data.predictions import Predictions
from tracking.ui import scatter


def logged(error, rng):
    def columns(count):
        true = rng.uniform(0, 6, count)
        return {"true:U": true, "predicted:U": true + rng.normal(0, error, count)}

    return Predictions({"validation": columns(2000), "unseen": columns(2000)}, {"units": {"U": "eV"}})


def test_the_bounds_of_a_seed_come_from_its_own_validation():
    rng = np.random.default_rng(0)
    files = {"coarse": logged(1.0, rng), "fine": logged(0.1, rng)}
    site = SimpleNamespace(
        predictions=files.get, reader=SimpleNamespace(read=lambda *_: SimpleNamespace(rows=[]))
    )  # fmt: skip
    members = [SimpleNamespace(id=name, tags={}) for name in files]
    series = [SimpleNamespace(members=members, number=0, label="two seeds", run=members[0])]
    plots = scatter.plots(series, scatter.read(site, series), "unseen")
    lines = [points for kind, points, _, label in plots["coverage_U"]._marks if label == "two seeds" and kind == "line"]
    assert len(lines) == 2
    for points in lines:
        stated, within = np.transpose(points)
        assert within == pytest.approx(stated, abs=0.05)


def test_answers_to_different_data_are_in_plots_of_their_own():
    rng = np.random.default_rng(0)
    files = {name: logged(0.1, rng) for name in ("one", "other", "third")}
    for name, digest in (("one", "a" * 64), ("other", "b" * 64), ("third", "a" * 64)):
        files[name].about["digest"] = digest
    site = SimpleNamespace(predictions=files.get, reader=SimpleNamespace(read=lambda *_: SimpleNamespace(rows=[])))
    runs = [SimpleNamespace(id=name, tags={}) for name in files]
    series = [SimpleNamespace(members=[run], number=n, label=run.id, run=run) for n, run in enumerate(runs)]
    sets = scatter.read(site, series)
    assert {name: sorted(of) for name, of in sets.items()} == {
        "validation (aaaaaaaa)": [0, 2], "unseen (aaaaaaaa)": [0, 2],
        "validation (bbbbbbbb)": [1], "unseen (bbbbbbbb)": [1],
    }  # fmt: skip
    assert "coverage_U" in scatter.plots(series, sets, "unseen (bbbbbbbb)")
    assert set(scatter.read(site, series[::2])) == {"validation", "unseen"}


@pytest.mark.parametrize(("reported", "said"), [({"reported": np.arange(100) < 10}, "0.400"), ({}, "0.040")])
def test_reliability_is_of_what_is_reported_where_the_file_tells(reported, said):
    stated = np.repeat([1.0, 0.0], [10, 90])
    columns = {"confidence": stated, "right": np.arange(100) < 6, "impurities": np.array([7]), **reported}
    one = SimpleNamespace(members=[], number=0, label="one", run=None)
    drawn = scatter.plots(
        [one], {"validation": {0: [(columns, Predictions({"validation": columns}), "one")]}}, "validation"
    )
    assert f"one: ECE {said}" in [mark[-1] for mark in drawn["reliability"]._marks]
