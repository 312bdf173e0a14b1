"""Scores of an impurity evaluation that ask the model again or read more of the data set."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.simulating.simulation import simulate
from stm_models.data import dataset
from stm_models.data.dataset import holds, load
from stm_models.signal.tiling import whole_field
from stm_models.tasks.impurity.ceiling import ceiling, references
from stm_models.tasks.impurity.config import ImpuritySimulation
from stm_models.tasks.impurity.occlusion import absolute, occlusion, occlusion_of_model
from stm_models.tasks.registry import get

TASK = get("impurity")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    config = ImpuritySimulation(generator="experiment", preset=("std",), fields=2, size=40, biases=(-0.1, 0.0))
    path = tmp_path_factory.mktemp("examined") / "experiment.zarr"
    simulate(TASK, config, path, workers=1, progress=False)
    return load(path, arrays=TASK.arrays)


def spots(images):
    """A detector that looks at the pixel alone."""
    return np.maximum(images[:, :1], 0) + 1e-6


def test_the_truth_itself_reaches_the_ceiling(experiment):
    """Score maps with the true positions: what they are worth by the reference is what the ceiling says."""
    scores = TASK.examine(spots, (40, 40), experiment.targets[:, :1], experiment, {})
    assert scores["reference_ratio"] == pytest.approx(scores["ratio_of_the_truth"], abs=0.04)
    assert 0.75 < scores["ratio_of_the_truth"] < 1
    assert 0.75 < scores["reference_f1"] < 1
    perfect = ceiling(experiment, [one[one[:, 0] >= 0] for one in experiment.arrays["positions"].astype(float)])
    assert perfect == {"ratio_of_the_truth": 1, "reference_f1": 1}


def test_without_bound_state_maps_there_is_no_reference(experiment, monkeypatch):
    assert holds(experiment, "bound_state")
    assert not holds(experiment, "maps")
    monkeypatch.setattr(dataset, "holds", lambda samples, name: False)
    found = TASK.examine(spots, (40, 40), experiment.targets[:, :1], experiment, {})
    assert set(found) == {"occluded_peaks", "without_core", "without_rings"}


def test_a_map_without_states_has_no_references(experiment, monkeypatch):
    monkeypatch.setattr(dataset, "stored", lambda samples, name: np.zeros((2, 40, 40)))
    assert [len(one) for one in references(experiment)] == [0, 0]
    assert ceiling(experiment, references(experiment)) == {"ratio_of_the_truth": 0, "reference_f1": 0}


def test_maps_divided_by_their_maximum_are_occluded_alike():
    """One peak alone is the maximum whatever is taken from it: only against the background does it fall."""
    image = np.zeros((1, 1, 48, 48))
    image[0, 0, 24, 24] = 4.0

    def logit(images):
        return images[:, :1]

    def softmax(images):
        values = np.exp(logit(images))
        return values / values.max(axis=(1, 2, 3), keepdims=True)

    place = [np.array([[24.0, 24.0]])]
    exact = occlusion(lambda images: np.exp(logit(images))[:, 0], image, place)
    mended = occlusion(absolute(softmax, True), image, place)
    misled = occlusion(absolute(softmax, False), image, place)
    assert exact.without_core[0] == pytest.approx(np.exp(-4))
    assert mended.without_core[0] == pytest.approx(exact.without_core[0])
    assert mended.without_rings[0] == pytest.approx(1)
    assert misled.without_core[0] == 1


def test_a_tiled_softmax_is_occluded_in_one_tile():
    """Each tile of a larger field is divided by a maximum of its own, so that two peaks of two tiles look alike."""
    image = np.zeros((1, 1, 48, 48), np.float32)
    image[0, 0, 24, 24], image[0, 0, 24, 8] = 4.0, 9.0

    def tiled(images):
        def own(tiles):
            values = np.exp(tiles[:, 0].astype(float))
            return values / values.max(axis=(1, 2), keepdims=True)

        return np.stack([whole_field(one, own, (20, 20), margin=4)[None] for one in images])

    found = occlusion_of_model(tiled, (20, 20), image, [np.array([[24.0, 24.0]])])
    assert found.without_core[0] == pytest.approx(np.exp(-4), rel=1e-5)
    assert found.without_rings[0] == pytest.approx(1)
    assert occlusion(absolute(tiled, True), image, [np.array([[24.0, 24.0]])]).without_core[0] > 0.1
