"""Several models in one file: exported with parity, asked without torch, told apart from a single one."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import export
from deploy.exporting.precision import judge
from deploy.model import asking
from deploy.model.questions import Question
from deploy.model.session import Session
from deploy.serving.page.answers import describe_answer
from stm_models.explain.references import references
from stm_models.networks import bundle as bundles
from stm_models.networks.ensemble import together
from stm_models.networks.model import Model
from stm_models.tasks.registry import get
from stm_models.training.appearance import Appearance
from stm_models.training.intervals import Interval, Residuals
from stm_models.training.novelty import Novelty
from stm_models.training.predict import features
from support import network_cases as cases

SHAPE = (1, 26, 27)
MAPS = ("gradient", "grad_cam", "guided", "integrated_gradients")
FINE = ExportConfig(explanations=MAPS, ig_steps=4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An ensemble of two convolutional networks with bounds, each of which standardises in its own way."""
    folder = tmp_path_factory.mktemp("ensemble")
    targets = np.random.default_rng(2).normal(3.0, 2.0, (24, 1))
    members = [
        Model.for_data(
            cases.nudge(cases.create("conv", SHAPE, 1, {"hidden": 32}, seed=seed)),
            cases.images(24, seed, SHAPE),
            targets,
        ).eval()
        for seed in range(2)
    ]
    whole, images, held = together(members), cases.images(24, 0, SHAPE), cases.images(16, 7, SHAPE)
    appearance = Appearance.fit(images)
    known, new = (features(whole, part, appearance=appearance) for part in (images, held))
    novelty, quantiles = Novelty.fit(known, appearance).calibrated({"clean": (new, np.arange(16))})
    with torch.no_grad():
        apart = whole.apart(torch.from_numpy(held))
        hints = novelty.hints(torch.from_numpy(new), torch.zeros(16, 0), apart).numpy()
    errors = np.random.default_rng(8).normal(0, 0.3, (16, 1))
    own, other = (np.array([f"{name}{row}" for row in range(16)]) for name in "cs")
    interval = Interval.fit(Residuals(hints, errors[::-1].copy(), other), Residuals(hints, errors, own), level=0.8)
    info = {
        "network": "conv", "options": dict(members[0].network.options), "task": "hubbard",
        "input": {"kind": "ft_ldos", "channels": 1, "height": 26, "width": 27, "kx_max": 1.25, "ky_max": 1.25},
        "targets": [{"name": "U", "unit": "eV", "description": ""}], "explained": 0,
        "data": {"recipe": "r1", "digest": "d1"},
    }  # fmt: skip
    bundles.save(folder / "bundle", whole, novelty, info, references(images, held, 0), interval)
    metadata = {key: info[key] for key in ("task", "input", "targets", "explained", "data")}
    metadata |= {
        "run_id": "run7", "git_commit": None, "metrics": {"mae": 0.25}, "distance": {"quantiles": quantiles},
        "interval": {"level": 0.8, "groups": 16}, "novelty": {"groups": 16, "sets": ["clean"]},
    }  # fmt: skip
    report = export(folder / "bundle", folder / "model.onnx", metadata, FINE)
    return SimpleNamespace(report=report, members=members, session=Session(report.path), held=held)


def test_every_map_and_answer_agrees_with_torch(exported):
    assert max(value for key, value in exported.report.parity.items() if key not in ("kinks", "rounding")) <= 1e-4
    assert exported.session.metadata.answers[:2] == ("prediction", "spread")
    assert set(exported.report.explanations) == set(MAPS)


def test_the_file_answers_with_mean_and_spread_of_its_members(exported):
    with torch.no_grad():
        each = np.stack([one(torch.from_numpy(exported.held)).numpy() for one in exported.members])
    found = asking.predict_all(exported.session, exported.held, ("prediction", "spread"))
    np.testing.assert_allclose(found["prediction"], each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["spread"], each.std(axis=0, ddof=1), rtol=1e-3)


def test_the_file_holds_every_weight_once(exported):
    proto = onnx.load(exported.report.path)
    large = [numpy_helper.to_array(one) for one in proto.graph.initializer]
    large = [(one.shape, one.tobytes()) for one in large if one.nbytes > 1000]
    assert len(large) >= 4
    assert len(set(large)) == len(large)


def test_a_smaller_file_is_judged_on_the_spread_too():
    targets, images = [{"name": "U", "unit": "eV"}], np.zeros((2, 1, 4, 4), np.float32)
    full = {"prediction": np.ones((2, 1)), "spread": np.full((2, 1), 0.25)}
    smaller = {**full, "spread": np.array([[0.25], [0.375]])}
    report = judge(lambda _: smaller, lambda _: full, images, targets, {}, "fp16", [1.0])
    assert report["spread"] == {"U": 0.125}


def test_the_answer_has_the_spread_in_the_targets_unit(exported):
    outputs = asking.predict_all(exported.session, exported.held[:2], exported.session.metadata.answers)
    answers = get("hubbard").decode(outputs, exported.session.metadata.as_dict())
    assert [one["U"]["spread"] for one in answers] == pytest.approx(outputs["spread"][:, 0].tolist())
    shown = describe_answer(exported.session, Question(exported.held[:1], ["one"]))
    assert shown["values"][0]["spread"] == pytest.approx(answers[0]["U"]["spread"])
    words = get("hubbard").words(answers[0])
    assert f", members ± {answers[0]['U']['spread']:.3f}" in words
