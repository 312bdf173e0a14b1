"""What a model file is worth on held-out samples: every set is asked about and scored once."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.promoting import contest
from pipelines.scoring.robustness import robust_scores
from stm_models.data.dataset import Samples


@pytest.mark.parametrize("names", [("clean",), ("clean", "shifted")])
def test_every_set_is_scored_once(monkeypatch, tmp_path, names):
    rng = np.random.default_rng(0)
    truth, states, about = np.ones((4, 1)), {"group": np.arange(4)}, {"targets": [{"name": "U"}]}
    sets = {
        name: Samples(rng.random((4, 1, 2, 2)).astype(np.float32), truth, states, about, tmp_path) for name in names
    }
    scored = []

    def metrics(prediction, part, calibration):
        scored.append(len(part))
        return {"mae": float(np.abs(prediction - part.targets).mean()), "largest": float(prediction.max())}

    def answers(part):
        return part.images.mean(axis=(1, 2, 3))[:, None].astype(np.float64)

    task = SimpleNamespace(metric="mae", larger_is_better=False, metrics=metrics)
    session = SimpleNamespace(output_names=["prediction"], metadata=SimpleNamespace(calibration={}))
    by_images = {id(part.images): answers(part) for part in sets.values()}
    monkeypatch.setattr(contest, "predict_all", lambda _, images, names: {"prediction": by_images[id(images)]})
    found = contest.perform(task, session, sets)
    assert scored.count(4) == len(sets)
    wanted = {name: float(np.abs(answers(part) - 1).mean()) for name, part in sets.items()}
    assert found.by_set == pytest.approx(wanted)
    assert found.metric == ("mae" if len(names) == 1 else "robust_mae")
    assert found.value == pytest.approx(np.mean(list(wanted.values())))
    same = robust_scores(task, answers, sets, {})
    assert same.get("robust_mae", found.value) == found.value
