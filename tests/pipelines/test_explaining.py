"""What `stm explain` is asked for, and what absent pixels look like."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.model import asking, questions
from deploy.model.metadata import ModelMetadata
from pipelines import explain as command
from pipelines.explaining import attention, explanation, mean_image, record
from pipelines.explaining.explainers import Explainer, chosen
from pipelines.explaining.judged_maps import summary
from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.explain import render
from tracking import runs
from tracking.store import connect


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


def test_pictures_show_the_sum_over_channels_and_say_so(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(render, "overlay_png", lambda path, image, map, **more: drawn.append((image, map, more)))
    size = {"kind": "map", "channels": 2, "height": 4, "width": 5, "unit": "S", "pixel_nm": 0.1}
    about = ModelMetadata(task="impurity", targets=[{"name": "heat"}], input={**size, "biases": [0.01, 0.02]})
    images, maps = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 5))
    question = SimpleNamespace(images=images, known=None)
    answers = [{"name": name, "count": 1} for name in "abc"]
    asking.write_maps(tmp_path, SimpleNamespace(metadata=about), question, answers, "gradient", maps)
    for row, (image, map, more) in enumerate(drawn):
        np.testing.assert_array_equal(image, images[row, 0])
        np.testing.assert_allclose(map, maps[row].sum(axis=0))
        assert more["title"].endswith(", sum over channels")
        assert more["image_label"] == "+10 mV: S"
        assert more["limit"] == pytest.approx(np.abs(maps.sum(axis=1)).max())
    assert len(drawn) == 3


def test_a_map_for_all_channels_is_averaged_once_not_for_every_channel():
    images = np.random.default_rng(0).normal(size=(5, 2, 4, 5)).astype(np.float32)
    ways = [
        Explainer("grad_cam", "grad_cam", lambda x, _: x[:, :1]),
        Explainer("gradient", "gradient", lambda x, _: x),
    ]
    session = SimpleNamespace(
        run=lambda x: {"prediction": x.mean(axis=(1, 2, 3))[:, None]},
        metadata=ModelMetadata(
            task="hubbard", targets=[{"name": "U"}], input={"kind": "x", "channels": 2, "height": 4, "width": 5}
        ),
    )
    samples = Samples(images, np.zeros((5, 1)), {}, {"input": {"kind": "x"}}, None)
    found = attention._gather(session, ways, samples, np.zeros(5, int))
    np.testing.assert_allclose(found.means["grad_cam"].mean[0], images[:, :1].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.means["gradient"].mean[0], images.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_shap_draws_from_a_background_and_absent_pixels_are_its_mean(monkeypatch):
    drawn, mean = np.ones((8, 1, 4, 5)), np.zeros((1, 4, 5))
    seen = []
    monkeypatch.setattr(explanation, "background_of", lambda *_: (drawn, mean))
    monkeypatch.setattr(explanation, "explainers", lambda *given: seen.append(given[3]) or [])
    options = explanation.ExplainOptions(background="a.zarr")
    ways, model, absent = explanation._ways(_session(), explanation.Source(None, None), ["gradient"], options)
    assert (ways, model) == ([], None)
    assert seen[0] is drawn
    assert absent is mean


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--most", "40"), "--most is 40: it is for --by-target"),
        (("--by-target", "--no-scores"), "--no-scores is for the maps of some samples"),
        (("--by-target", "--randomise"), "--randomise is for the maps of some samples"),
        (("--by-target", "--background", "b.zarr"), "--background is for the maps of some samples"),
        (("--draws", "9"), "--draws is 9: it is for shap"),
        (("--background-size", "9", "--method", "gradient"), "--background-size is 9: it is for shap"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, said):
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    with pytest.raises(InputError, match=said):
        command.run(parser.parse_args(["a.onnx", "data.zarr", "--out", "out", *options]))


def test_rows_of_a_file_are_refused_under_the_option_that_was_given(tmp_path):
    (tmp_path / "map.npy").touch()
    for rows, option in (((3,), "--sample"), ((0, 1, 2), "--samples")):
        session = SimpleNamespace(metadata=None)
        with pytest.raises(InputError, match=f"^{option} is {rows[0]}.*: {option} is for data sets"):
            questions.read_question(tmp_path / "map.npy", session, questions.Reading(samples=rows))


def test_the_steadiness_of_several_maps_is_their_mean():
    def scores(change):
        gain = {"gain": 0.5, "beaten": 1.0}
        return {"methods": {"gradient": {"deletion": gain, "insertion": gain, "max_sensitivity": change, "share": {}}}}

    assert summary([scores(1.0), scores(4.0), scores(None)])["gradient"]["max_sensitivity"] == 2.5


def test_the_record_says_how_the_input_was_read(tmp_path):
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    about = SimpleNamespace(task="hubbard", sha256="0" * 64)
    reading = questions.Reading(key="map", size_nm=(20.0, 30.0), rotate=-3.5)
    result = {"files": [], "methods": ["gradient"]}
    options = explanation.ExplainOptions()
    run_id = record.record(store, explanation.Source(store, None), about, "map.mat", reading, result, options)
    recorded = runs.configuration(store, run_id)
    assert recorded["reading"] == {"key": "map", "size_nm": [20.0, 30.0], "rotate": -3.5}
