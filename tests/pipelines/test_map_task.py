"""A task whose target is a map goes through every stage as one whose targets are numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.model import asking, fields, questions
from deploy.model.session import Session
from pipelines.demo import describe
from pipelines.evaluate import describe as say_scores
from pipelines.evaluate import evaluate
from pipelines.explaining import explanation
from pipelines.inspecting.representation import look, shown, trained
from pipelines.learning.fitting import Measured, fit, load_parts
from pipelines.predict import describe as say
from pipelines.promoting import contest, promotion, publishing
from pipelines.scoring.judging import judge
from pipelines.scoring.reference import evaluate_measured
from pipelines.settings import (
    CalibrateConfig,
    DemoConfig,
    EvaluateConfig,
    PromoteConfig,
    Settings,
    SplitConfig,
    TuneConfig,
)
from pipelines.simulating.simulation import simulate
from pipelines.train import read_measured
from stm_models.data import panel
from stm_models.errors import InputError
from stm_models.networks import bundle as bundles
from stm_models.tasks import registry
from stm_models.tasks.inputs import Reference
from stm_models.training.config import TrainConfig
from support import toy_map_task as toy
from tracking import models, runs
from tracking.store import connect

TASK, CONFIG = toy.ToyMapTask(), toy.ToyMapConfig()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two trainings, of which the second hardly began, the first one's file, and where all is."""
    folder = tmp_path_factory.mktemp("map")
    patch = pytest.MonkeyPatch()
    patch.setattr(registry, "_TASKS", {**registry._TASKS, TASK.name: TASK})
    patch.chdir(folder)
    train = TrainConfig(
        network="fieldnet", options={"width": 8, "dilations": [1]}, loss="focal_heat", epochs=20, batch_size=8,
        learning_rate=1e-2, weight_decay=0, device="cpu",
    )  # fmt: skip
    sections = (CONFIG, SplitConfig(), train, TuneConfig(), EvaluateConfig(states=6), DemoConfig(),
                CalibrateConfig(states=12))  # fmt: skip
    settings = Settings(TASK, "none", *sections)
    store = connect(f"sqlite:///{folder}/mlflow.db")
    simulate(TASK, CONFIG, folder / "data.zarr", workers=1, progress=False)
    parts = load_parts(folder / "data.zarr", TASK, settings.split)
    with runs.start(store, TASK.name, "train") as record:
        fitted = fit(record, settings, train, parts)
    with runs.start(store, TASK.name, "train badly") as record:
        bad = train.model_copy(update={"epochs": 1, "learning_rate": 1e-6})
        rng = np.random.default_rng(0)
        measured = Measured((rng.normal(size=(2, 20, 30)).astype(np.float32),), {"a.npy": "0" * 64})
        worse = fit(record, settings, bad, parts, measured=measured)
    publishing.publish(store, TASK, fitted.run_id, folder / "model.onnx")
    yield folder, store, settings, parts, fitted, worse
    patch.undo()


def test_samples_hold_target_maps_and_the_tasks_arrays(made):
    parts = made[3]
    assert parts.samples.targets.shape == (36, 2, toy.SIDE, toy.SIDE)
    assert not len(parts.unseen)
    subset = parts.samples.subset(np.array([5, 2]))
    np.testing.assert_array_equal(subset.arrays["places"], parts.samples.arrays["places"][[5, 2]])
    assert (subset.targets[:, 1].sum(axis=(1, 2)) == subset.coordinates["count"]).all()


def test_the_best_run_has_the_larger_score(made):
    _, store, _, _, fitted, worse = made
    assert fitted.metrics["hits"] > 0.9
    assert fitted.metrics["false"] < 0.5
    assert not [name for name in fitted.metrics if name.startswith("unseen_")]
    assert fitted.baselines["brightest"]["hits"] > 0.9
    both = [fitted.run_id, worse.run_id]
    rows = [runs.get(store, run_id) for run_id in both]
    best = max(rows, key=lambda row: row.metrics["hits"])
    assert publishing.best_run(store, TASK, both).metrics["hits"] == best.metrics["hits"]
    assert rows[1].tags["transductive"] == "true"
    assert "transductive" not in rows[0].tags


def test_baselines_are_calibrated_on_what_the_network_is(made, monkeypatch):
    _, store, settings, parts, *_ = made
    seen = []
    monkeypatch.setattr(toy.ToyMapTask, "calibrate", lambda self, prediction, samples: seen.append(samples) or {})
    with runs.start(store, "calibrated", "train") as record:
        fit(record, settings, settings.train.model_copy(update={"epochs": 1}), parts)
    monkeypatch.setattr(promotion.settings, "load", lambda *_, **__: settings)
    row = runs.get(store, record.id)
    without = replace(row, metrics={"hits": row.metrics["hits"]})  # as that of a trial
    assert "brightest.hits" in promotion._with_baselines(store, TASK, without, None)
    assert len(seen) == 3
    assert len({samples.attributes["digest"] for samples in seen}) == 1
    assert seen[0].attributes["digest"] != parts.samples.attributes["digest"]


def test_validation_scores_of_a_model_fitted_again_have_the_calibration_of_the_one_before(made, monkeypatch):
    _, store, settings, parts, *_ = made
    monkeypatch.setattr(toy.ToyMapTask, "calibrate", lambda self, prediction, _: {"own": float(prediction.mean())})
    monkeypatch.setattr(toy.ToyMapTask, "metrics", lambda self, *about: {"hits": 1.0, **about[2]})
    found = {}
    for refit in (False, True):
        config = settings.train.model_copy(update={"epochs": 1, "refit": refit})
        with runs.start(store, "fitted again", "train") as record:
            found[refit] = fit(record, settings, config, parts, baselines=False).metrics
    assert found[True]["own"] == found[False]["own"]


def test_what_a_model_was_calibrated_on_is_no_new_data(made, tmp_path):
    folder, store = made[:2]
    (path,) = folder.glob("data.calibration-*.zarr")
    result = evaluate(store, folder / "model.onnx", path)
    assert (result["trained_on"], result["calibrated_on"]) == (False, ["novelty"])
    assert "warning: novelty calibrated on this data set: what" in say_scores(result)
    tags = runs.get(store, result["run_id"]).tags
    assert (tags["trained_on_this_data"], tags["calibrated_on_this_data"]) == ("false", "novelty")
    session, options = Session(folder / "model.onnx"), explanation.ExplainOptions(method="gradient")
    found = explanation.explain_data_set(session, explanation.Source(None, None), str(path), tmp_path, options)
    assert found["record"]["calibrated_on_this_data"] == ["novelty"]
    assert found["notes"] == ["calibrated on this data set: novelty of the model"]


def test_scores_of_the_file_use_its_calibration(made):
    folder, store = made[:2]
    result = evaluate(store, folder / "model.onnx", folder / "data.zarr")
    assert result["trained_on"]
    assert result["metrics"]["hits"] > 0.9
    assert Session(folder / "model.onnx").metadata.calibration["threshold"] > 0
    assert result["calibrated_on"] == []
    held = panel.load(runs.download(store, result["run_id"], "panel.npz"))
    assert held.targets.shape == (12, 2, toy.SIDE, toy.SIDE)
    assert held.arrays["prediction"].shape == (12, 1, toy.SIDE, toy.SIDE)


def test_its_features_are_ordered_by_the_number_of_bright_pixels(made):
    _, store, _, parts, fitted, _ = made
    model = trained(store, fitted.run_id)
    samples, kinds = shown(model, None)
    assert set(kinds) == {"validation"}
    np.testing.assert_array_equal(samples.coordinates["sample"], parts.validation.coordinates["sample"])
    found, table = look(model, samples, kinds)
    assert found.report["colours"] == {"count": "1"}
    assert table["pc_1"].shape == (len(parts.validation),)
    assert abs(np.corrcoef(table["pc_1"], table["count"])[0, 1]) > 0.9


def test_promotion_needs_a_larger_score(made, monkeypatch):
    _, store, _, parts, fitted, *_ = made
    refused = promotion.promote(store, TASK, fitted.run_id)
    assert refused["promoted"] is False
    assert refused["reason"] == "hits is 1, that of brightest (1) as good or better: expected to beat them"
    models.set_alias(store, "stm-toy-map", "champion", refused["version"])
    champion, row = models.champion(store, "stm-toy-map"), runs.get(store, fitted.run_id)
    config = PromoteConfig.model_validate({})

    def against(other):
        return promotion._judge(store, TASK, row, champion, other, config, parts.samples.path, None)

    def gate(result, name):
        return next(each for each in result["gates"] if each["name"] == name)

    itself = against(champion)
    assert gate(itself, "champion")["verdict"] == "failed"
    assert "not above the" in gate(itself, "champion")["reason"]
    assert "trained on other data" in gate(against(replace(champion, digest="other")), "data")["reason"]
    truth = parts.validation.targets[:, 1:]
    answers = iter([truth, np.zeros_like(truth)])
    monkeypatch.setattr(contest, "predict_all", lambda *_: {"prediction": next(answers)})
    result = against(champion)
    assert gate(result, "champion")["verdict"] == "passed"
    assert (result["value"], result["champion"]["value"]) == (1, 0)
    assert gate(result, "parity")["verdict"] == "failed"  # such answers are not the torch model's


def test_judging_without_unseen_values(made):
    folder, store, settings, parts, *_ = made
    scores, beside, fresh = judge(store, settings, parts, folder / "model.onnx", folder, 1)
    assert set(scores) == set(beside["brightest"]) == {"hits", "false"}
    assert fresh.name == "fresh.zarr"
    result = {
        "task": TASK.name, "units": ["1"], "network": "fieldnet", "metrics": scores, "baselines": beside,
        "prediction": {"places": [[1, 2]], "verdict": "fine"}, "model_version": 1, "seconds": 1.0, "data": "d",
        "digest": "0", "onnx": "o", "store": "s", "files": ["f"], "server": {"latency_ms": 1.0},
        "promotion": {"model": "m", "promoted": True, "reason": "r"}, "explanation": "gradient",
    }  # fmt: skip
    text = describe(result)
    assert "1 bright pixels" in text
    assert "On fresh states  " in text


def test_answers_of_a_data_set(made):
    folder = made[0]
    session = Session(folder / "model.onnx")
    question = questions.read_question(folder / "data.zarr", session, questions.Reading(samples=(3,)))
    answers, outputs = asking.answer(session, question, "gradient")
    assert answers[0]["places"] == answers[0]["true"]["places"]
    written = asking.write_answers(folder / "one", session, question, answers, "gradient", outputs)
    names = sorted(Path(path).name for path in written)
    expected = [
        "prediction.json",
        *(f"sample-00003_{end}" for end in ("gradient.npy", "gradient.png", "gradient_places.npz", "places.csv")),
    ]
    assert names == expected
    json.loads((folder / "one" / "prediction.json").read_text())
    saved = np.load(folder / "one" / "sample-00003_gradient_places.npz")
    assert saved["places"].tolist() == saved["pixels"].tolist() == answers[0]["places"]
    assert saved["maps"].shape == (len(answers[0]["places"]), 2, toy.SIDE, toy.SIDE)
    result = {"task": TASK.name, "answers": answers, "files": [], "notes": []}
    assert f"{len(answers[0]['places'])} bright pixels" in say(result)


def _slope_of_the_field(model, image, pixel):
    """Autograd of one pixel's score of a whole field at once, a small one mirrored as far as the model's size."""
    leaf = torch.from_numpy(image.astype(np.float64)).requires_grad_(True)
    shown, place = leaf, []
    for axis, length in enumerate(image.shape[1:]):
        lack = max(0, toy.SIDE - length)
        mirrored = np.pad(np.arange(length), (lack // 2, lack - lack // 2), mode="reflect")
        shown = shown.index_select(1 + axis, torch.from_numpy(mirrored))
        place.append(int(pixel[axis]) + lack // 2)
    (slope,) = torch.autograd.grad(model(shown[None])[0, 0, place[0], place[1]], leaf)
    return slope.numpy()


def test_each_place_of_a_larger_field_is_explained_by_itself(made):
    """Also those near its edges, and those whose fitted position lies in the pixel beside."""
    session = Session(made[0] / "model.onnx")
    rng = np.random.default_rng(5)
    image = rng.normal(0, 0.1, (2, 37, 50)).astype(np.float32)
    true = np.array([(0, 0), (20, 25), (20, 29), (36, 3), (2, 49), (36, 49)])
    image[:, true[:, 0], true[:, 1]] += 3
    prediction = fields.ask_field(session, image)["prediction"][0, 0]
    found = fields.explain_places(session, image, prediction, true + 0.6, "gradient")
    np.testing.assert_array_equal(found.pixels, true)
    size = toy.SIDE
    assert (found.corners >= 0).all()
    assert (found.corners + size <= image.shape[1:]).all()
    np.testing.assert_array_equal(found.corners[1], true[1] - size // 2)
    for (y, x), (row, column), values in zip(true, found.corners, found.maps, strict=True):
        tile = image[None, :, row : row + size, column : column + size]
        crop = session.run(tile, ("gradient",), [(y - row) * size + x - column])["gradient"][0]
        np.testing.assert_array_equal(values, crop)
        far = np.hypot(*np.meshgrid(np.arange(size) + row - y, np.arange(size) + column - x, indexing="ij")) > 5
        assert np.abs(values[:, far]).max() < 1e-6 * np.abs(values).max()
        assert np.abs(values[:, y - row, x - column]).max() > 0.1 * np.abs(values).max()
    near = found.maps[1][:, :, 4:] - found.maps[2][:, :, :-4]  # the same pixels, two places four apart
    assert np.abs(near).max() > 0.5 * np.abs(found.maps[1]).max()


def test_a_higher_neighbour_two_pixels_away_is_not_explained_instead(made):
    session = Session(made[0] / "model.onnx")
    prediction = np.zeros((20, 20), np.float32)
    prediction[7, 8], prediction[7, 10] = 0.5, 1.0
    places = np.array([[7.0, 8.0], [7.0, 8.5], [6.6, 10.3]])
    found = fields.explain_places(session, np.zeros((2, 20, 20), np.float32), prediction, places, "gradient")
    assert found.pixels.tolist() == [[7, 8], [7, 8], [7, 10]]


def test_more_places_than_are_explained_are_told(made, tmp_path, monkeypatch):
    session = Session(made[0] / "model.onnx")
    question = questions.read_question(made[0] / "data.zarr", session, questions.Reading(samples=(2,)))
    count = len(asking.answer(session, question)[0][0]["places"])
    assert count == 3
    monkeypatch.setattr(asking, "PLACES_AT_MOST", 2)
    answers, outputs = asking.answer(session, question, "gradient")
    assert answers[0]["notes"] == ["sample-00002: gradient maps of the 2 surest of 3 places only."]
    asking.write_answers(tmp_path, session, question, answers, "gradient", outputs)
    assert np.load(tmp_path / "sample-00002_gradient_places.npz")["maps"].shape[0] == 2
    assert not asking.answer(session, question)[0][0]["notes"]
    old = session.metadata.model_copy(update={"focusable": False})
    monkeypatch.setattr(session, "metadata", old)
    answers, outputs = asking.answer(session, question, "gradient")
    assert "strongest of 3 places only" in answers[0]["notes"][0]
    asking.write_answers(tmp_path / "old", session, question, answers, "gradient", outputs)
    assert not (tmp_path / "old" / "sample-00002_gradient_places.npz").exists()


@pytest.mark.parametrize("shape", [(40, 23), (9, 30), (7, 5)])
def test_measured_fields_of_any_size(made, shape):
    folder, store = made[:2]
    rng = np.random.default_rng(1)
    image = rng.normal(0, 0.1, (2, *shape))
    height, width = shape
    true = [(height // 2, width // 2), *([(4, width - 6), (height - 5, 4)] if min(shape) >= 9 else [])]
    for place in true:
        image[(slice(None), *place)] += 3
    np.save(folder / "map.npy", image)
    session = Session(folder / "model.onnx")
    question = questions.read_question(folder / "map.npy", session, questions.Reading(size_nm=(5.0, 5.0)))
    answers, outputs = asking.answer(session, question, "gradient")
    assert outputs["prediction"].shape == (1, 1, *shape)
    assert outputs["gradient"].shape == (1, 2, *shape)
    found = {(int(2 * y), int(2 * x)) for y, x in answers[0]["places"]}  # the task's step of half a pixel
    assert found == set(true)
    peak = np.unravel_index(np.abs(outputs["gradient"][0]).sum(axis=0).argmax(), shape)
    assert tuple(map(int, peak)) in set(true)
    checked = asking.write_answers(folder / "field", session, question, answers, "gradient", outputs)
    saved = np.load(next(path for path in checked if path.endswith("gradient_places.npz")))
    assert {tuple(pixel) for pixel in saved["pixels"].tolist()} == set(true)
    torch_model = bundles.load(runs.download(store, made[4].run_id, "bundle")).model.double()
    for pixel, corner, values in zip(saved["pixels"], saved["corners"], saved["maps"], strict=True):
        wanted = _slope_of_the_field(torch_model, question.images[0], pixel)
        whole = np.zeros_like(wanted)
        y, x = corner
        whole[:, y : y + values.shape[1], x : x + values.shape[2]] = values
        np.testing.assert_allclose(whole, wanted, atol=1e-4 * np.abs(wanted).max())
    np.savetxt(folder / "known.txt", true)
    result = evaluate_measured(store, folder / "model.onnx", folder / "map.npy", folder / "known.txt", "5x5")
    assert result["metrics"] == {"difference": 0.0}
    tags = runs.get(store, result["run_id"]).tags
    assert tags["reference.sha256"] != tags["data.sha256"]


def test_a_reference_in_the_measured_file_is_read_with_the_same_options(made, monkeypatch):
    folder, store = made[:2]
    np.save(folder / "twice.npy", np.zeros((2, 16, 16)))
    np.save(folder / "copy.npy", np.zeros((2, 16, 16)))
    asked = []

    def ask(*given):
        asked.append(given[-1].read_as)
        return {}, ("told",)

    monkeypatch.setattr(toy.ToyMapTask, "reference_metrics", ask)
    for reference in ("twice.npy", "copy.npy"):
        found = evaluate_measured(store, folder / "model.onnx", folder / "twice.npy", folder / reference, "5x4")
        assert found["notes"][-1] == "told"
    assert asked == [{"size_nm": (5.0, 4.0), "channel": None}, None]


def test_what_a_task_does_not_do_is_refused(made):
    folder, _, settings, parts, *_ = made
    np.save(folder / "small.npy", np.zeros((2, 4, 4)))
    hubbard = registry.get("hubbard")
    with pytest.raises(InputError, match="has no term for maps without labels"):
        read_measured(hubbard, [str(folder / "small.npy")], {})
    with pytest.raises(InputError, match=r"--reference is .*: leave it out"):
        hubbard.reference_metrics({}, {}, Reference(folder / "small.npy"))
    with pytest.raises(InputError, match="leave --reference out"):
        evaluate_measured(None, folder / "model.onnx", folder / "data.zarr", folder / "small.npy")
    for changes, match in (
        ({"network": "mlp", "options": {}}, "answers with numbers, the targets are maps"),
        ({"on_the_fly": True}, "cannot draw samples"),
    ):
        with runs.start(made[1], TASK.name, "train") as record, pytest.raises(InputError, match=match):
            fit(record, settings, settings.train.model_copy(update=changes), parts)
