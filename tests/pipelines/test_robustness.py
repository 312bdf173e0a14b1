"""What decides between models: the mean over perturbation sets, and the baselines beside them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.scoring import robustness
from pipelines.scoring.robustness import better_baselines, judged_metric, judged_sets, robust_scores
from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.tasks.perturbation import CLEAN, Perturbation, Step

SHIFT = Perturbation("shifted", "", (Step("gain_shift", 1.0, {"gain": (1.0, 1.0), "shift": (0.5, 0.5)}),))
REMADE = Perturbation("remade", "", remake=lambda _: lambda *_: np.ones((1, 4, 4), np.float32), needs=("ldos",))
TRAINED = replace(SHIFT, name="trained", judged=False)


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.random((5, 1, 4, 4)).astype(np.float32)
    return Samples(images, np.zeros((5, 1)), {"sample": np.arange(5)}, {"targets": [{"name": "U"}]}, tmp_path)


def task(*sets, larger=False):
    return SimpleNamespace(
        perturbations=lambda: sets, metric="mae", larger_is_better=larger,
        metrics=lambda prediction, part, _: {"mae": float(np.abs(prediction - part.targets).mean())},
    )  # fmt: skip


@pytest.mark.parametrize("held", [True, False])
def test_sets_are_those_that_are_judged_and_can_be_made(samples, monkeypatch, held):
    monkeypatch.setattr(robustness, "holds", lambda _, name: held and name == "ldos")
    monkeypatch.setattr(robustness, "perturbed", lambda one, part, _: part.images + (one.name == "shifted") / 2)
    found = judged_sets(task(CLEAN, SHIFT, REMADE, TRAINED), samples)
    assert list(found) == ["clean", "shifted", *(["remade"] if held else [])]
    assert found["clean"] is samples
    np.testing.assert_allclose(found["shifted"].images, samples.images + 0.5)
    chosen = judged_sets(task(CLEAN, SHIFT, REMADE), samples, ["shifted"])
    assert list(chosen) == ["shifted"]
    with pytest.raises(InputError, match=r"unknown perturbation 'shiftd'.*did you mean 'shifted'"):
        judged_sets(task(CLEAN, SHIFT), samples, ["shiftd"])
    if not held:
        with pytest.raises(InputError, match=r"judged on 'remade', which is made from 'ldos', and .* does not hold it"):
            judged_sets(task(CLEAN, REMADE), samples, ["clean", "remade"])


def test_the_mean_is_over_all_sets_the_clean_one_among_them(samples):
    sets = judged_sets(task(CLEAN, SHIFT), samples)

    def predictor(part):
        return part.images.mean(axis=(1, 2, 3))[:, None]

    found = robust_scores(task(CLEAN, SHIFT), predictor, sets, {})
    clean = float(samples.images.mean())
    assert found == pytest.approx({"shifted.mae": clean + 0.5, "robust_mae": clean + 0.25}, rel=1e-5)
    assert robust_scores(task(CLEAN), predictor, {"clean": samples}, {}) == {}
    assert robust_scores(task(CLEAN, SHIFT), predictor, {"shifted": sets["shifted"]}, {}).keys() == found.keys()


def test_the_images_are_the_same_for_all_models(samples):
    noisy = Perturbation("noisy", "", (Step("gaussian", 1.0, {"sigma": (0.1, 0.2)}),))
    first, second = (judged_sets(task(CLEAN, noisy), samples)["noisy"].images for _ in range(2))
    assert (first == second).all()
    assert not (first == samples.images).any()


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"mae", "unseen_mae", "unseen_robust_mae"}, "unseen_robust_mae"),
        ({"mae", "unseen_mae"}, "unseen_mae"),
        ({"mae", "robust_mae"}, "robust_mae"),
        ({"mae"}, "mae"),
    ],
)
def test_what_decides_is_the_hardest_that_is_known(names, wanted):
    assert judged_metric(task(), names) == wanted


def test_a_baseline_as_good_is_not_beaten():
    metrics = {"unseen_mae": 0.2, "mean.unseen_mae": 1.0, "ridge.unseen_mae": 0.2, "kernel.unseen_mae": 0.1}
    metrics |= {"kernel.mae": 0.0, "unseen_mild.mae": 0.0}
    assert better_baselines(task(), "unseen_mae", metrics) == {"ridge": 0.2, "kernel": 0.1}
    assert better_baselines(task(larger=True), "unseen_mae", metrics) == {"mean": 1.0, "ridge": 0.2}
