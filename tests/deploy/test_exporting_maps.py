"""Files of networks that answer with a map."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from deploy.exporting.config import ExportConfig
from deploy.exporting.graph import FOCUS, INPUT
from deploy.exporting.write import write
from deploy.model.session import Session
from deploy.model.subgraph import extract
from stm_models.explain.gradient import slope
from stm_models.explain.methods import Steps, compute
from stm_models.explain.references import references
from stm_models.networks import bundle as bundles
from stm_models.networks.model import Model
from stm_models.networks.registry import create, default_options
from stm_models.training.novelty import Novelty

SHAPE = (3, 13, 16)
CASES = {
    "fieldnet": {"width": 3, "dilations": [2], "eightfold": True},
    "voltage_attention": {"width": 4, "depth": 3},
}


OUTPUTS = ("prediction", "distance", "novelty", "gradient")
MAPS = {"fieldnet": ("gradient", "guided", "integrated_gradients"), "voltage_attention": ("gradient",)}
REACH = 4  # px that fieldnet sees around a pixel: 2 and its dilations
FOCUSES = (0, 100, SHAPE[1] * SHAPE[2] - 1)


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """Name, torch model, images, the writer's reply, and the file."""
    name, folder = request.param, tmp_path_factory.mktemp("maps")
    options = {**default_options(name), **CASES[name]}
    model = Model.blank(create(name, SHAPE, 1, options, seed=4)).eval()
    images = np.random.default_rng(0).normal(size=(20, *SHAPE)).astype(np.float32)
    features = model.features(torch.from_numpy(images)).detach().numpy()
    novelty, quantiles = Novelty.fit(features[:12]).calibrated({"clean": (features[12:], np.arange(8))})
    shared = {
        "task": "hubbard", "explained": 0, "data": {"recipe": "r", "digest": "d"},
        "input": {"kind": "maps", "channels": SHAPE[0], "height": SHAPE[1], "width": SHAPE[2]},
        "targets": [{"name": "heat", "unit": "1", "description": ""}],
    }  # fmt: skip
    kept = references(images, images[:4], 0)
    bundles.save(folder / "b", model, novelty, {"network": name, "options": options, **shared}, kept)
    own = {"run_id": None, "git_commit": None, "metrics": {}, "distance": {"quantiles": quantiles}}
    config = ExportConfig(explanations=tuple(MAPS[name]), ig_steps=4, eg_draws=4)
    reply = write(folder / "b", folder / "m.onnx", {**shared, **own}, config)
    return name, model, images, reply, folder / "m.onnx"


def _slope(model, image, pixel):
    """Autograd of one pixel's score of one image (C, H, W)."""
    leaf = torch.from_numpy(image[None]).requires_grad_(True)
    (slope,) = torch.autograd.grad(model(leaf).flatten()[pixel], leaf)
    return slope[0].numpy()


def test_file_gives_the_map_and_the_slope_of_its_strongest_pixel(exported):
    _, model, images, reply, path = exported
    assert max(reply["parity"][key] for key in ("prediction", "gradient", "distance", "rows", "focus")) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = {out.name: out.shape for out in session.get_outputs()}
    assert [shapes[name] for name in ("prediction", "distance", "gradient")] == [
        ["batch", 1, *SHAPE[1:]], ["batch"], ["batch", *SHAPE],
    ]  # fmt: skip
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: images[:2]}), strict=True))
    answer = model(torch.from_numpy(images[:2])).detach().numpy()
    np.testing.assert_allclose(found["prediction"], answer, atol=1e-5)
    for row in range(2):
        wanted = _slope(model, images[row], int(answer[row].argmax()))
        np.testing.assert_allclose(found["gradient"][row], wanted, atol=1e-4 * np.abs(wanted).max())
        assert np.abs(wanted).max() > 0


def test_focus_is_optional_in_the_file_and_in_its_parts(exported):
    *_, images, _, path = exported
    whole = path.read_bytes()
    onnx.checker.check_model(whole, full_check=True)
    model = onnx.load_from_string(whole)
    assert [one.name for one in model.graph.input] == [INPUT, FOCUS]
    (kept,) = (one for one in model.metadata_props if one.key == "stm")
    assert json.loads(kept.value)["focusable"] is True
    for names in (list(OUTPUTS), ["gradient"], ["prediction", "distance"]):
        session = onnxruntime.InferenceSession(extract(whole, names), providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == [INPUT]
        plain = session.run(names, {INPUT: images[:2]})
        assert len(plain) == len(names)
        if "gradient" in names:
            assert [one.name for one in session.get_overridable_initializers()] == [FOCUS]
            same = session.run(names, {INPUT: images[:2], FOCUS: np.array([-1])})
            other = session.run(names, {INPUT: images[:2], FOCUS: np.array([5, 5])})
            for name, one, two, three in zip(names, plain, same, other, strict=True):
                np.testing.assert_array_equal(one, two)
                assert np.array_equal(one, three) == (name != "gradient")


def test_every_map_explains_the_pixel_that_focus_chooses(exported):
    name, _, images, _, path = exported
    session = Session(path, provider="cpu", threads=1)
    batch, bundle = images[[2, 2, 3]], bundles.load(path.parent / "b")
    assert session.metadata.explanations == MAPS[name]
    details = session.metadata.details.get("integrated_gradients", {"steps": 4})
    for method in MAPS[name]:
        explain = compute(bundle, method, steps=Steps(details["steps"], 4))
        for focus in (None, FOCUSES):
            pixel = None if focus is None else torch.tensor(focus)
            want = explain(torch.from_numpy(batch), focus=pixel).numpy()
            found = session.run(batch, (method,), focus)[method]
            np.testing.assert_allclose(found, want, atol=2e-4 * np.abs(want).max(), err_msg=method)
        assert np.abs(found[0] - found[1]).max() > 0.3 * np.abs(found).max(), method


def test_gradient_at_a_focus_is_the_slope_of_that_pixels_score(exported):
    name, model, images, _, path = exported
    session = Session(path, provider="cpu", threads=1)
    batch = images[[2, 2, 3]]
    found = session.run(batch, ("gradient",), FOCUSES)["gradient"]
    assert np.abs(found[0] - found[1]).max() > 0.3 * np.abs(found).max()
    reference = slope(model, torch.from_numpy(batch), torch.tensor(FOCUSES)).numpy()
    double = model.double()
    try:
        for row, pixel in enumerate(FOCUSES):
            image = batch[row].astype(np.float64)
            wanted = _slope(double, image, pixel)
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(found[row], wanted, atol=1e-4 * scale)
            np.testing.assert_allclose(reference[row], wanted, atol=1e-4 * scale)
            step = 1e-6 * np.random.default_rng(row).normal(size=SHAPE)
            scores = double(torch.from_numpy(np.stack((image + step, image - step)))).detach().flatten(1)[:, pixel]
            if name == "fieldnet":  # of a softmax the highest score is a constant by definition, see its notes
                assert float(scores[0] - scores[1]) / 2 == pytest.approx(float((found[row] * step).sum()), rel=1e-3)
    finally:
        model.float()


def test_gradient_at_a_focus_vanishes_where_the_network_does_not_look(exported):
    name, _, images, _, path = exported
    if name != "fieldnet":
        pytest.skip("voltage_attention looks everywhere")
    found = Session(path, provider="cpu", threads=1).run(images[:1].repeat(3, axis=0), ("gradient",), FOCUSES)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    for pixel, gradient in zip(FOCUSES, found["gradient"], strict=True):
        row, column = divmod(pixel, SHAPE[2])
        far = np.maximum(abs(y - row), abs(x - column)) > REACH
        assert far.any()
        assert np.abs(gradient[:, far]).max() < 1e-7 * np.abs(gradient).max()
        assert np.abs(gradient[:, ~far]).min() > 0
