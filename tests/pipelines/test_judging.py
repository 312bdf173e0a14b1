"""Which fresh states the plain metrics of a demo are of, and which are no fresh ones."""

from pathlib import Path

import numpy as np
import pytest

from pipelines import settings
from pipelines.learning.parts import load_parts
from pipelines.promoting.held_out import repeated
from pipelines.scoring import judging
from pipelines.scoring.judging import at_trained_values
from stm_models.data.dataset import Samples
from stm_models.tasks import registry


@pytest.mark.parametrize(
    ("fresh", "kept"),
    [([0.0, 1.0, 2.0, 3.0], [0.0, 2.0]), ([0.3, 1.7], [0.3, 1.7])],
    ids=["a grid whose other values were held out", "drawn continuously"],
)
def test_states_at_trained_values_are_kept_and_all_where_no_value_comes_twice(fresh, kept):
    values = np.array(fresh)
    samples = Samples(np.zeros((len(values), 1, 2, 2), np.float32), values[:, None], {"U": values}, {}, Path("x.zarr"))
    chosen = at_trained_values(samples, np.array([0.0, 2.0 + 1e-12, 4.0]), "U")
    np.testing.assert_array_equal(chosen.coordinates["U"], kept)


def test_trained_values_are_told_apart_in_any_unit():
    values = 1e-10 * np.array([0.0, 1.0, 2.0])
    samples = Samples(np.zeros((3, 1, 2, 2), np.float32), values[:, None], {"U": values}, {}, Path("x.zarr"))
    chosen = at_trained_values(samples, 1e-10 * np.array([0.0, 2.0 + 1e-12, 4.0]), "U")
    np.testing.assert_array_equal(chosen.coordinates["U"], values[[0, 2]])


def test_baselines_beside_a_model_fitted_again_know_the_validation_samples_too(data, monkeypatch):
    class Told(Exception):
        pass

    def told(task, train, held, seed):
        raise Told(train, held)

    monkeypatch.setattr(judging, "fit_baselines", told)
    again = ["split.unseen_fraction=0.2", "calibrate.states=0", "train.refit=true"]
    for count in (2, 3):
        chosen = settings.load("hubbard", "test", assignments=again[:count])
        parts = load_parts(data, chosen.task, chosen.split)
        with pytest.raises(Told) as caught:
            judging.judge(None, chosen, parts, Path("x.onnx"), Path("x"), 1)
        train, held = (set(part.coordinates["sample"]) for part in caught.value.args)
        validation = set(parts.validation.coordinates["sample"])
        assert train >= set(parts.train.coordinates["sample"])
        assert validation <= (train if chosen.train.refit else held)
        assert not train & held


def test_states_that_the_training_has_too_are_counted_whatever_the_seed():
    def of(**simulate):
        values = {"index": 2, "dielectric": None, "interaction_count": 5, "replicates": 2, **simulate}
        return {"config": values}

    task, one = registry.get("hubbard"), {"filling": [0.0, 0.0]}
    assert repeated(task, of(**one), of(**one, seed=77)) == 5
    assert repeated(task, of(**one), of(**one, seed=77, interaction_count=3)) == 3
    assert repeated(task, of(**one), of(**one, seed=77, interaction_sampling="uniform")) == 0
    assert repeated(task, of(**one), of(**one, seed=77, temperature=0.02)) == 0
    assert repeated(task, of(), of(seed=77)) == 0
    assert repeated(task, {"imported": {}}, of(**one)) == 0
    assert repeated(registry.get("impurity"), {"config": {"fields": 2}}, {"config": {"fields": 2}}) == 0
