"""What `stm explain` is asked for, and what absent pixels look like."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import mean_image
from pipelines.explainers import chosen
from stm_models.errors import InputError


def _session(*explanations):
    about = SimpleNamespace(explanations=explanations, input=SimpleNamespace(shape=(1, 4, 5)))
    return SimpleNamespace(path="a.onnx", metadata=about)


@pytest.mark.parametrize("text", [None, "", "all"])
def test_a_file_without_maps_is_refused_whatever_is_asked_of_it(text):
    with pytest.raises(InputError, match=r"has no explanations: .*--method shap"):
        chosen(text, _session())


def test_methods_are_taken_once_and_in_their_order():
    session = _session("gradient", "guided")
    assert chosen(None, session) == ["gradient"]
    assert chosen("shap, all, gradient", session) == ["shap", "gradient", "guided"]
    assert chosen("shap,all", _session()) == ["shap"]


def test_absent_pixels_are_the_mean_of_a_whole_data_set_whatever_is_drawn_of_it(monkeypatch):
    images = np.random.default_rng(0).random((30, 1, 4, 5), dtype=np.float32)
    monkeypatch.setattr(mean_image, "load_fitting", lambda *_: SimpleNamespace(images=images))
    (drawn, mean), (other, again) = (mean_image.background_of("a.zarr", _session(), 8, seed) for seed in (0, 1))
    assert drawn.shape == other.shape == (8, 1, 4, 5)
    assert not np.array_equal(drawn, other)
    np.testing.assert_array_equal(mean, again)
    np.testing.assert_allclose(mean, images.mean(axis=0), rtol=1e-5)
    found, where = mean_image.mean_image(_session(), None, None, None, mean)
    assert found is mean
    assert where == "mean of the images of --background"


def test_a_background_of_another_size_is_refused_by_the_name_of_its_option(monkeypatch):
    images = np.ones((3, 1, 8, 8), np.float32)
    monkeypatch.setattr(mean_image, "load_fitting", lambda *_: SimpleNamespace(images=images))
    with pytest.raises(InputError, match=r"--background a.zarr: .*\(1, 8, 8\), expected the model's own, \(1, 4, 5\)"):
        mean_image.background_of("a.zarr", _session(), 8, 0)
