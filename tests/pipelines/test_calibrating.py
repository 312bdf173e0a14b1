"""Which samples intervals learn from, and what a promotion must not judge them by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines import settings
from pipelines.learning import calibrating
from pipelines.learning.parts import load_parts
from pipelines.learning.trust import trust
from pipelines.promoting.held_out import HeldOut
from stm_models.errors import InputError
from stm_models.networks.model import Model
from stm_models.networks.registry import create
from stm_models.tasks.perturbation import CLEAN, find


@pytest.fixture
def parts(data):
    chosen = settings.load("hubbard", "test")
    return load_parts(data, chosen.task, chosen.split)


@pytest.fixture
def sampled(parts, monkeypatch):
    """Samples to calibrate on, with as many simulated as there are in the data set."""
    others = replace(parts.samples, attributes={**parts.samples.attributes, "recipe": "c" * 64, "digest": "c" * 64})
    monkeypatch.setattr(calibrating, "_simulated", lambda *_: None)
    monkeypatch.setattr(calibrating, "load", lambda *_, **__: others)

    def call(refit, states=12):
        chosen = settings.load("hubbard", "test", assignments=[f"calibrate.states={states}"])
        return calibrating.calibration_samples(chosen, parts, refit=refit)

    return call


def _rows(samples):
    return samples.coordinates["sample"].tolist()


def test_the_spread_of_errors_is_learnt_from_what_no_promotion_judges_by(parts, sampled):
    assert len(parts.unseen)
    usual = sampled(refit=False)
    assert (usual.source, usual.part) == ("simulated", "validation")
    assert _rows(usual.spread) == _rows(parts.validation)
    # Fitted again with the validation states, only those of unseen values are left.
    again = sampled(refit=True)
    assert again.part == "unseen"
    assert _rows(again.spread) == _rows(parts.unseen)


def test_without_anything_held_out_the_spread_is_learnt_from_the_training_data(parts, sampled):
    object.__setattr__(parts, "unseen", parts.unseen.subset(np.array([], int)))
    found = sampled(refit=True)
    assert found.part == "training"
    assert _rows(found.spread) == _rows(parts.train)


def test_data_that_cannot_be_simulated_have_their_held_out_states_for_both(parts, sampled):
    found = sampled(refit=False, states=0)
    assert (found.source, found.part) == ("held out", "both")
    assert not set(_rows(found.spread)) & set(_rows(found.samples))
    assert sorted(_rows(found.spread) + _rows(found.samples)) == sorted(_rows(parts.validation) + _rows(parts.unseen))


def test_data_in_a_folder_that_cannot_be_written_are_calibrated_in_the_working_directory(
    parts, sampled, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrating, "_writable", lambda folder: folder == tmp_path)
    places = []
    monkeypatch.setattr(calibrating, "_simulated", lambda settings, config, path, workers: places.append(path))
    sampled(refit=False)
    assert [place.parent for place in places] == [tmp_path]
    assert f"are kept in {places[0]}" in capsys.readouterr().out
    monkeypatch.setattr(calibrating, "_writable", lambda folder: False)
    with pytest.raises(InputError, match=r"start in a folder that you may write, or give --set calibrate.states=0"):
        sampled(refit=False, states=13)


@pytest.mark.parametrize(
    ("interval", "part", "taught"),
    [
        ({"digest": "c", "spread": {"part": "validation", "digest": "d"}}, "unseen", ""),
        ({"digest": "c", "spread": {"part": "validation", "digest": "d"}}, "validation", "the spread of the intervals"),
        ({"digest": "c", "spread": {"part": "unseen", "digest": "d"}}, "unseen", "the spread of the intervals"),
        ({"digest": "d", "spread": {"part": "both", "digest": "d"}}, "unseen", "the factor of the intervals"),
        ({"digest": "c", "spread": {"part": "unseen", "digest": "d"}}, "", "the spread of the intervals"),
        ({"digest": "c", "spread": {"part": "unseen", "digest": "e"}}, "", ""),
        ({"digest": "c"}, "unseen", "the spread of the intervals"),  # an older file
    ],
)
def test_what_intervals_learnt_from_is_not_what_they_are_judged_by(parts, interval, part, taught):
    judged = replace(parts.unseen, attributes={**parts.unseen.attributes, "digest": "d"})
    assert HeldOut({"clean": judged}, "", part).taught(interval, "d") == taught
    assert HeldOut({}).taught(interval, "d") == ""


@pytest.mark.parametrize(("level", "bounds"), [(0.9, False), (0.5, True)])
def test_too_few_states_that_calibrate_are_said(parts, sampled, level, bounds):
    """Ten states: none can be called unusual, and they are too few for bounds of 90 %."""
    held = sampled(refit=False)
    chosen = settings.load("hubbard", "test", assignments=[f"calibrate.level={level}"])
    model = Model.for_data(
        create("mlp", parts.train.images.shape[1:], 1, seed=0), parts.train.images, parts.train.targets
    )
    known = trust(chosen, model.eval(), parts.train, held, CLEAN, 0)
    assert known.notes["novelty"] == "10 held-out states cannot tell whether an image is unusual"
    assert (known.interval is not None) == bounds == ("interval" not in known.notes)
    if bounds:
        spread = known.about["interval"]["spread"]
        assert spread["part"] == "validation"
        assert spread["digest"] == parts.samples.attributes["digest"]
        assert spread["groups"] == len(np.unique(parts.validation.coordinates["group"]))
    else:
        assert known.notes["interval"].startswith("no bounds: 10 states calibrate, a level of 0.9 takes 12: ")


@pytest.mark.parametrize(("trained", "own"), [("clean", ["clean"]), ("mild", None), ("mixed_width", ["atom_width"])])
def test_a_model_is_calibrated_on_what_its_training_lets_it_claim(parts, sampled, trained, own):
    held = sampled(refit=False)
    chosen = settings.load("hubbard", "test", assignments=["calibrate.level=0.5", "split.judged=[clean,mild]"])
    model = Model.for_data(
        create("mlp", parts.train.images.shape[1:], 1, seed=0), parts.train.images, parts.train.targets
    )
    known = trust(chosen, model.eval(), parts.train, held, find(chosen.task.perturbations(), trained), 0)
    expected = own if trained == "clean" else ["clean", "mild", *(own or [])]
    assert known.about["interval"]["sets"] == known.about["novelty"]["sets"] == expected
