"""A task whose target is a map goes through every stage as one whose targets are numbers."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.serving.session import Session
from pipelines import asking, publishing, questions
from pipelines.demo import describe
from pipelines.evaluate import evaluate
from pipelines.fitting import Measured, fit, load_parts
from pipelines.judging import judge
from pipelines.predict import describe as say
from pipelines.reference import evaluate_measured
from pipelines.settings import DemoConfig, EvaluateConfig, Settings, SplitConfig, TuneConfig
from pipelines.simulation import simulate
from pipelines.train import read_measured
from stm_models.data import panel
from stm_models.errors import InputError
from stm_models.tasks import registry
from stm_models.training.config import TrainConfig
from tracking import models, runs
from tracking.store import connect

sys.path.insert(0, str(Path(__file__).parents[1]))
toy = importlib.import_module("toy_map_task")
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
    sections = (CONFIG, SplitConfig(), train, TuneConfig(), EvaluateConfig(states=6), DemoConfig())
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


def test_scores_of_the_file_use_its_calibration(made):
    folder, store = made[:2]
    result = evaluate(store, folder / "model.onnx", folder / "data.zarr")
    assert result["trained_on"]
    assert result["metrics"]["hits"] > 0.9
    assert Session(folder / "model.onnx").metadata.calibration["threshold"] > 0
    held = panel.load(runs.download(store, result["run_id"], "panel.npz"))
    assert held.targets.shape == (12, 2, toy.SIDE, toy.SIDE)
    assert held.arrays["prediction"].shape == (12, 1, toy.SIDE, toy.SIDE)


def test_promotion_needs_a_larger_score(made, monkeypatch):
    _, store, _, parts, fitted, *_ = made
    assert publishing.promote(store, TASK, fitted.run_id)["reason"] == "there was no champion"
    champion, row = models.champion(store, "stm-toy-map"), runs.get(store, fitted.run_id)

    def against_itself():
        return publishing._compare(store, TASK, row, champion, replace(champion, digest="other"), parts.samples.path)

    result = against_itself()
    assert not result["promoted"]
    assert "not above the" in result["reason"]
    answers = iter([parts.validation.targets[:, 1:], np.zeros_like(parts.validation.targets[:, 1:])])
    monkeypatch.setattr(publishing, "predict_all", lambda session, images: {"prediction": next(answers)})
    result = against_itself()
    assert result["promoted"]
    assert (result["value"], result["champion"]["value"]) == (1, 0)


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
    question = questions.read_question(folder / "data.zarr", session, questions.Reading(sample=3))
    answers, outputs = asking.answer(session, question, "gradient")
    assert answers[0]["places"] == answers[0]["true"]["places"]
    written = asking.write_answers(folder / "one", session, question, answers, "gradient", outputs)
    names = sorted(Path(path).name for path in written)
    expected = ["prediction.json", *(f"sample-00003_{end}" for end in ("gradient.npy", "gradient.png", "places.csv"))]
    assert names == expected
    json.loads((folder / "one" / "prediction.json").read_text())
    result = {"task": TASK.name, "answers": answers, "files": [], "notes": []}
    assert f"{len(answers[0]['places'])} bright pixels" in say(result)


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
    np.savetxt(folder / "known.txt", true)
    result = evaluate_measured(store, folder / "model.onnx", folder / "map.npy", folder / "known.txt", "5x5")
    assert result["metrics"] == {"difference": 0.0}
    tags = runs.get(store, result["run_id"]).tags
    assert tags["reference.sha256"] != tags["data.sha256"]


def test_what_a_task_does_not_do_is_refused(made):
    folder, _, settings, parts, *_ = made
    np.save(folder / "small.npy", np.zeros((2, 4, 4)))
    hubbard = registry.get("hubbard")
    with pytest.raises(InputError, match="has no term for maps without labels"):
        read_measured(hubbard, [str(folder / "small.npy")], {})
    with pytest.raises(InputError, match=r"--reference is .*: leave it out"):
        hubbard.reference_metrics({}, folder / "small.npy")
    with pytest.raises(InputError, match="leave --reference out"):
        evaluate_measured(None, folder / "model.onnx", folder / "data.zarr", folder / "small.npy")
    for changes, match in (
        ({"network": "mlp", "options": {}}, "answers with numbers, the targets are maps"),
        ({"on_the_fly": True}, "cannot draw samples"),
    ):
        with runs.start(made[1], TASK.name, "train") as record, pytest.raises(InputError, match=match):
            fit(record, settings, settings.train.model_copy(update=changes), parts)
