"""Trainings of several seeds as one model: judged, exported and asked like any other, and what cannot be joined."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deploy.model import asking
from deploy.model.fields import ask_field
from deploy.model.session import Session
from pipelines import ensemble, rerun
from pipelines.learning import joining, repeats
from pipelines.learning.fitting import fit, load_parts
from pipelines.promoting import held_out, model_card, promotion, publishing
from pipelines.settings import CalibrateConfig, DemoConfig, EvaluateConfig, Settings, SplitConfig, TuneConfig
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.errors import InputError
from stm_models.networks import bundle as bundles
from stm_models.networks.ensemble import members_of
from stm_models.tasks import registry
from stm_models.training.config import TrainConfig
from support import toy_map_task as toy
from tracking import lineage, models, runs
from tracking.lineage import MEMBERS
from tracking.store import connect

TASK, CONFIG = toy.ToyMapTask(), toy.ToyMapConfig()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three seeds of a training, one of other epochs and one fitted again; the ensemble of the first, and its file."""
    folder = tmp_path_factory.mktemp("joined")
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "_TASKS", {**registry._TASKS, TASK.name: TASK})
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    train = TrainConfig(
        network="fieldnet", options={"width": 8, "dilations": [1]}, loss="focal_heat", epochs=12, batch_size=8,
        learning_rate=1e-2, weight_decay=0, device="cpu",
    )  # fmt: skip
    sections = (CONFIG, SplitConfig(), train, TuneConfig(), EvaluateConfig(states=6), DemoConfig(),
                CalibrateConfig(states=12))  # fmt: skip
    settings = Settings(TASK, "none", *sections)

    def load(*_, recorded=None, **__):  # the toy has no presets
        sections = {"split": SplitConfig, "train": TrainConfig, "calibrate": CalibrateConfig}
        return replace(settings, **{name: kind(**(recorded or {}).get(name, {})) for name, kind in sections.items()})

    patch.setattr(joining.settings, "load", load)
    store = connect(f"sqlite:///{folder}/mlflow.db")
    simulate(TASK, CONFIG, folder / "data.zarr", workers=1, progress=False)
    parts = load_parts(folder / "data.zarr", TASK, settings.split)
    parent = repeats.repeat(store, settings, parts, "seeds", 3)["run_id"]
    folds = repeats.repeat(store, replace(settings, train=train.model_copy(update={"epochs": 1})), parts, "folds", 2)
    others = {}
    for name, changes in {"shorter": {"epochs": 1, "seed": 7}, "refit": {"epochs": 1, "refit": True},
                          "again": {}}.items():  # fmt: skip
        with runs.start(store, TASK.name, name) as record:
            others[name] = fit(record, settings, train.model_copy(update=changes), parts, baselines=False).run_id
    arguments = SimpleNamespace(task=TASK.name, runs=[f"runs:/{parent}"], data="")
    result = ensemble.run(arguments)
    publishing.publish(store, TASK, result["run_id"], folder / "model.onnx")
    yield SimpleNamespace(
        folder=folder, store=store, parts=parts, parent=parent, folds=folds["run_id"], result=result, **others
    )
    patch.undo()


def _seeds(made):
    rows = runs.find(made.store, TASK.name, parent=made.parent)
    return {runs.configuration(made.store, row.id)["train"]["seed"]: row for row in rows}


def test_the_ensemble_is_a_run_that_says_what_it_is_made_of(made):
    row, seeds = runs.get(made.store, made.result["run_id"]), _seeds(made)
    assert sorted(seeds) == [0, 1, 2]
    assert row.outcome == "complete"
    assert row.params["ensemble.members"] == "3"
    assert row.tags[MEMBERS].split(",") == [seeds[seed].id for seed in range(3)]
    assert [(one["seed"], one["value"]) for one in made.result["members"]] == [
        (seed, seeds[seed].metrics[made.result["judged"]]) for seed in range(3)
    ]
    total = sum(each.metrics["train_seconds"] for each in seeds.values())
    assert row.metrics["train_seconds"] == pytest.approx(total)
    said = ensemble.describe(made.result)
    assert all(words in said for words in ("ensemble of 3 fieldnet", "seed 0", "seed 2", made.result["run_id"]))


def test_its_bundle_answers_with_the_mean_of_the_members(made):
    folder = runs.download(made.store, made.result["run_id"], "bundle")
    whole = bundles.load(folder).model
    single = [bundles.load(runs.download(made.store, row.id, "bundle")).model for row in _seeds(made).values()]
    images = torch.from_numpy(made.parts.validation.images)
    with torch.no_grad():
        each = torch.stack([one(images) for one in single])
        torch.testing.assert_close(whole(images), each.mean(dim=0))
        assert each.std(dim=0).max() > 1e-3
    assert len(members_of(whole.network)) == 3


def test_its_score_is_that_of_the_mean(made):
    folder = runs.download(made.store, made.result["run_id"], "bundle")
    whole, part = bundles.load(folder), made.parts.validation
    with torch.no_grad():
        prediction = whole.model(torch.from_numpy(part.images)).double().numpy()
    expected = TASK.metrics(prediction, part, whole.info["calibration"])
    assert {key: made.result["metrics"][key] for key in expected} == pytest.approx(expected)
    assert made.result["baselines"]


def test_its_file_has_the_spread_of_maps_of_any_size(made):
    session = Session(made.folder / "model.onnx")
    whole = bundles.load(runs.download(made.store, made.result["run_id"], "bundle"))
    image = np.random.default_rng(3).normal(size=(2, 45, 38)).astype(np.float32)
    found = ask_field(session, image, session.metadata.answers)
    assert found["prediction"].shape == found["spread"].shape == (1, 1, 45, 38)
    with torch.no_grad():
        wanted = whole.answers(torch.from_numpy(image[None]))
    # Near its edges the field is mirrored for the tiles, and for the network it ends.
    np.testing.assert_allclose(
        found["spread"][..., 12:-12, 12:-12], wanted["spread"][..., 12:-12, 12:-12].numpy(), atol=1e-5
    )
    own = asking.predict_all(session, made.parts.validation.images[:2], session.metadata.answers)
    with torch.no_grad():
        known = whole.answers(torch.from_numpy(made.parts.validation.images[:2]))
    np.testing.assert_allclose(own["spread"], known["spread"].numpy(), atol=1e-5)


def test_it_passes_the_gates_of_any_model(made):
    result = promotion.promote(made.store, TASK, made.result["run_id"], force="the only one")
    gates = {gate["name"]: gate["verdict"] for gate in result["gates"]}
    assert result["promoted"]
    assert gates.items() >= {"parity": "passed", "sanity": "passed", "robustness": "passed"}.items()
    assert gates["baselines"] == ("failed" if made.result["better"] else "passed")


def test_single_runs_can_be_given_in_any_order(made):
    seeds = _seeds(made)
    rows = joining.trainings(made.store, TASK, [seeds[2].id, seeds[0].id])
    assert [row.id for row in rows] == [seeds[0].id, seeds[2].id]


def test_what_cannot_be_joined_is_told(made):
    first = _seeds(made)[0].id
    for given, words in (
        ([first], "is one training: give two or more"),
        ([first, first], "is given twice"),
        ([made.parent, first], "is the parent of several trainings: give it alone"),
        ([made.folds], "are of folds, each with other samples left out"),
        ([first, made.shorter], "has 1 for train.epochs"),
        ([first, made.again], "have 1 seeds"),
        ([made.refit, first], "fitted again with its validation samples"),
        ([made.result["run_id"], first], "is an ensemble itself: give the runs that it is made of"),
        ([first, "0" * 32], "unknown run"),
    ):
        with pytest.raises(InputError) as caught:
            joining.trainings(made.store, TASK, given)
        assert words in str(caught.value)


def test_trainings_on_other_data_are_not_joined(made, monkeypatch):
    seeds = _seeds(made)
    original = runs.get

    def get(store, run_id):
        row = original(store, run_id)
        return replace(row, tags={**row.tags, "data.digest": "f" * 64}) if run_id == seeds[1].id else row

    monkeypatch.setattr(joining.runs, "get", get)
    with pytest.raises(InputError, match=r"has fff.*for the data set"):
        joining.trainings(made.store, TASK, [seeds[0].id, seeds[1].id])


def _changed(made, monkeypatch, run_id, tags=None, outcome=None, config=None):
    """Let a run be recorded otherwise."""
    get, configuration, find = runs.get, runs.configuration, runs.find

    def of(row):
        said = {**row.tags, **(tags or {}), **({"outcome": outcome} if outcome else {})}
        return replace(row, tags=said) if row.id == run_id else row

    monkeypatch.setattr(joining.runs, "get", lambda store, one: of(get(store, one)))
    monkeypatch.setattr(joining.runs, "find", lambda *about, **more: [of(row) for row in find(*about, **more)])
    if config:
        monkeypatch.setattr(
            joining.runs, "configuration",
            lambda store, one: config(configuration(store, one)) if one == run_id else configuration(store, one),
        )  # fmt: skip


@pytest.mark.parametrize("which", ["parent", "nested"])
def test_what_was_not_finished_is_not_joined_in_part(made, monkeypatch, which):
    run_id = made.parent if which == "parent" else _seeds(made)[1].id
    _changed(made, monkeypatch, run_id, outcome="killed")
    with pytest.raises(InputError, match=f"finished {3 if which == 'parent' else 2} of its 3 trainings: resume it"):
        joining.trainings(made.store, TASK, [made.parent])


def test_an_option_of_a_later_version_counts_as_its_default(made, monkeypatch):
    def older(values):
        return {**values, "train": {key: value for key, value in values["train"].items() if key != "refit"}}

    first, second = (_seeds(made)[seed].id for seed in (0, 1))
    for run_id in (first, second):
        _changed(made, monkeypatch, run_id, config=older)
    assert len(joining.trainings(made.store, TASK, [first, second])) == 2


def test_other_measured_maps_are_more_than_a_seed(made, monkeypatch):
    first, second = (_seeds(made)[seed].id for seed in (0, 1))
    monkeypatch.setattr(joining, "_measured", lambda store, row: {"a.npy": "0" * 64} if row.id == second else {})
    with pytest.raises(InputError, match=r"for measured maps, .*differ by train\.seed alone"):
        joining.trainings(made.store, TASK, [first, second])


def test_test_data_that_scored_a_member_are_not_new_to_the_ensemble(made, monkeypatch):
    fresh = made.folder / "fresh.zarr"
    simulate(TASK, TASK.fresh(CONFIG, 99, 6, unseen=False), fresh, workers=1, progress=False)
    about = Session(made.folder / "model.onnx").metadata
    row = runs.get(made.store, made.result["run_id"])
    assert held_out.fresh(made.store, TASK, row, None, fresh, about).problem == ""
    digest = load(fresh).attributes["digest"]
    with runs.start(made.store, TASK.name, "evaluate") as record:
        record.tags({"evaluated.run": _seeds(made)[1].id, "data.evaluation.digest": digest})
    assert "has scored this model" in held_out.fresh(made.store, TASK, row, None, fresh, about).problem


def test_a_member_leads_to_the_ensemble_and_the_card_says_of_how_many(made):
    found = lineage.trace(made.store, _seeds(made)[1].id)
    (joined,) = [each for each in found["descendants"] if each["run"] == made.result["run_id"]]
    assert [one["model"] for one in joined["versions"]] == [publishing.model_name(TASK)]
    version = models.version(made.store, publishing.model_name(TASK), "1")
    assert "Ensemble of 3 fieldnet." in model_card.markdown(model_card.make(made.store, TASK, version))


def test_the_newest_run_of_several_seeds_is_joined_where_none_is_named(made):
    assert joining.newest(made.store, TASK).id == made.parent
    empty = connect(f"sqlite:///{made.folder}/other.db")
    with pytest.raises(InputError, match=r"no finished run of several seeds of toy-map.*--seeds 3"):
        joining.newest(empty, TASK)


def test_a_run_of_another_task_is_told(made):
    other = SimpleNamespace(name="hubbard")
    with pytest.raises(InputError, match=f"is of task '{TASK.name}', expected 'hubbard'"):
        joining.trainings(made.store, other, [made.parent])


def test_an_ensemble_is_not_trained_again(made):
    with pytest.raises(InputError, match="is an ensemble: train its members again"):
        rerun._check(runs.get(made.store, made.result["run_id"]))
