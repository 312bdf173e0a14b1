"""Exported files against the models that they came from."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy import special

from deploy.model.subgraph import extract
from stm_models.explain.methods import METHODS, PATHS, Steps, compute
from stm_models.networks import bundle as bundles
from stm_models.signal.conformal import TailTable
from stm_models.training.predict import features
from support import exported_models as models

CASES, random_images = models.CASES, models.random_images

MAPS = {
    "mlp": ("gradient", "grad_x_input", "integrated_gradients", "expected_gradients"),
    "conv": ("gradient", "grad_x_input", "grad_cam", "guided", "integrated_gradients", "expected_gradients"),
}
ANSWERS = ("prediction", "lower", "upper", "distance", "novelty")


@pytest.fixture(params=CASES)
def exported(request, exports):
    return exports[request.param]


def _run(session, images):
    names = [out.name for out in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


def test_file_is_whole_small_and_described_by_its_report(exported):
    report = exported.report
    assert report.path.is_absolute()
    assert report.sha256 == hashlib.sha256(exported.content).hexdigest()
    assert report.size_bytes == len(exported.content)
    weights = (exported.bundle / "weights.safetensors").stat().st_size
    assert report.size_bytes < 1.25 * weights + 400_000  # six explanations are nodes, not weights
    errors = {*ANSWERS, *MAPS[exported.name], "rows"}
    assert set(report.parity) == {*errors, "kinks", "rounding"}
    assert all(report.parity[name] <= 1e-4 for name in errors)
    assert tuple(report.explanations) == MAPS[exported.name]
    assert set(report.explanations) | set(report.refused) == set(METHODS)
    assert report.seconds > 0
    assert [p.name for p in report.path.parent.iterdir() if p.name.startswith(".")] == []
    onnx.checker.check_model(exported.content, full_check=True)
    model = onnx.load_from_string(exported.content)
    assert model.opset_import[0].version == report.opset
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_names_types_and_shapes_are_the_contract(exported):
    def describe(values):
        return [(v.name, v.type, v.shape) for v in values]

    shape, targets = list(exported.shape), len(exported.targets)
    assert describe(exported.session.get_inputs()) == [("image", "tensor(float)", ["batch", *shape])]
    assert describe(exported.session.get_outputs()) == [
        *((name, "tensor(float)", ["batch", targets]) for name in ("prediction", "lower", "upper")),
        *((name, "tensor(float)", ["batch"]) for name in ("distance", "novelty")),
        *(
            (name, "tensor(float)", ["batch", *([1, *shape[1:]] if name == "grad_cam" else shape)])
            for name in MAPS[exported.name]
        ),
    ]


@pytest.mark.parametrize("batch", [2, 5])
def test_agrees_with_torch_on_other_batches(exported, batch):
    images = random_images(exported.shape, batch, 10 + batch)
    bundle = bundles.load(exported.bundle)
    got = _run(exported.session, images)
    leaf = torch.from_numpy(images).requires_grad_(True)
    prediction = bundle.model(leaf)
    for row in range(batch):  # one by one: a mixture of samples would show
        leaf.grad = None
        prediction[row, exported.explained].backward(retain_graph=True)
        want = leaf.grad[row].numpy()
        assert np.abs(got["gradient"][row] - want).max() <= 1e-4 * np.abs(want).max()
    np.testing.assert_allclose(got["prediction"], prediction.detach().numpy(), rtol=1e-4)
    seen = torch.from_numpy(features(bundle.model, images, appearance=bundle.novelty.appearance))
    np.testing.assert_allclose(got["distance"], bundle.novelty(seen).numpy(), rtol=1e-4)
    assert np.abs(got["gradient"][0] - got["gradient"][1]).max() > 1e-3 * np.abs(got["gradient"]).max()


def test_bounds_and_novelty_are_their_formulas_in_numpy(exported):
    images = np.concatenate([random_images(exported.shape, 6, 1), 3 * random_images(exported.shape, 2, 40)])
    bundle, got = bundles.load(exported.bundle), _run(exported.session, images)
    known = {key: value.double().numpy() for key, value in bundle.novelty.state_dict().items()}
    looks = {key.removeprefix("appearance."): value for key, value in known.items()}
    size = bundle.novelty.appearance.block
    blocks = images[:, :, : size * looks["mean"].shape[1], : size * looks["mean"].shape[2]].astype(np.float64)
    blocks = blocks.reshape(8, len(looks["mean"]), looks["mean"].shape[1], size, -1, size).mean(axis=(3, 5))
    z = ((blocks - looks["mean"]) / looks["scale"]).reshape(8, -1)
    inside = z @ looks["directions"].T
    rest = np.sqrt(np.square(z - inside @ looks["directions"]).mean(axis=1))
    own = bundle.model.features(torch.from_numpy(images)).numpy().astype(np.float64)
    features = np.hstack([own, inside / looks["spread"], rest[:, None]])
    where = (features - known["mean"]) @ known["directions"]
    distance = np.sqrt((where**2).mean(axis=1)) / known["unit"]
    np.testing.assert_allclose(got["distance"], distance, rtol=1e-4)
    tables = zip(known["starts"], known["widths"], known["weights"], known["floor"], strict=True)
    chances = [TailTable(*table)(distance) for table in tables]
    np.testing.assert_allclose(got["novelty"], np.max(chances, axis=0), rtol=1e-3, atol=1e-5)
    assert got["novelty"][6:].max() < 0.2 < got["novelty"][:6].max() <= 1
    own = {key: value.double().numpy() for key, value in bundle.interval.state_dict().items()}
    hints = np.concatenate([2 * np.log(distance)[:, None], where[:, :5]], axis=1)
    scaled = np.clip((hints - own["mean"]) / own["scale"], -6, 6)

    def answer(name):
        inner = scaled @ own[f"{name}.0.weight"].T + own[f"{name}.0.bias"]
        hidden = inner * (1 + special.erf(inner / np.sqrt(2))) / 2
        return hidden @ own[f"{name}.2.weight"].T + own[f"{name}.2.bias"]

    spread, looks = own["unit"] * np.exp(np.clip(answer("body"), -9, 3)), answer("look").argmax(axis=1)
    factor = np.empty_like(spread)
    for row, target in np.ndindex(spread.shape):
        rank = np.searchsorted(own["edges"][target, looks[row]], spread[row, target])
        factor[row, target] = own["factor"][target, looks[row], rank]
    for name, sign in (("lower", -1), ("upper", 1)):
        expected = got["prediction"] + sign * factor * spread
        np.testing.assert_allclose(got[name], expected, rtol=1e-3, atol=1e-4)


def test_gradient_is_the_slope_of_the_files_own_prediction(exported):
    image = random_images(exported.shape, 1, 20)
    gradient = _run(exported.session, image)["gradient"][0].astype(np.float64)
    scale = bundles.load(exported.bundle).model.pixel_scale.numpy().astype(np.float64)
    rng = np.random.default_rng(21)
    directions = [
        scale**2 * gradient,
        *(scale * np.sign(gradient) * rng.random(scale.shape) for _ in range(3)),
    ]
    # The convolutional network answers in float32 and with kinks: an untrained one hardly varies.
    tolerance = {"mlp": 2e-3, "conv": 6e-2}[exported.name]
    for direction in directions:
        step = 2e-3 / np.abs(direction / scale).max()
        ends = np.concatenate((image + step * direction, image - step * direction)).astype(np.float32)
        moved = ends[0].astype(np.float64) - ends[1]  # what float32 made of the step
        values = _run(exported.session, ends)["prediction"][:, exported.explained].astype(np.float64)
        assert values[0] - values[1] == pytest.approx(float((gradient * moved).sum()), rel=tolerance)


def test_every_map_is_that_of_torch_whatever_the_batch_and_whatever_else_is_asked(exported):
    bundle = bundles.load(exported.bundle)
    entry = json.loads(exported.session.get_modelmeta().custom_metadata_map["stm"])
    steps = Steps(entry["details"]["integrated_gradients"]["steps"], 6, 3, 5)
    images = random_images(exported.shape, 5, 31)
    for name in MAPS[exported.name]:
        part = onnxruntime.InferenceSession(extract(exported.content, [name]), providers=["CPUExecutionProvider"])
        want = compute(bundle, name, target=exported.explained, steps=steps)(torch.from_numpy(images)).numpy()
        for rows in (slice(5), slice(2), slice(4, 5)):
            (got,) = part.run([name], {"image": images[rows]})
            # A point of a line may lie where a unit is at its kink to within rounding: some pixels move then.
            apart = np.abs(got - want[rows]) / np.abs(want).max()
            assert np.quantile(apart, 0.98) <= 1e-4, name
            assert apart.max() <= (2e-3 if name in PATHS else 2e-4), name
        assert np.abs(want[0] - want[1]).max() > 1e-2 * np.abs(want).max()


def test_a_loops_memory_does_not_grow_with_points_or_batch(exported):
    model = onnx.load_from_string(exported.content)
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    assert len(loops) == 2
    gradient = onnx.load_from_string(extract(exported.content, ["gradient"]))
    for loop in loops:
        body = loop.attribute[0].g
        assert not body.initializer, "weights are those of the graph around"
        assert len(body.node) < len(gradient.graph.node) + 30


def test_part_for_the_prediction_holds_nothing_of_the_gradient(exported):
    whole = onnx.load_from_string(exported.content)
    part = onnx.load_from_string(extract(exported.content, ["prediction"]))
    assert {o.name for o in part.graph.output} == {"prediction"}
    assert len(part.graph.node) < 0.4 * len(whole.graph.node)
    kinds = [node.op_type for node in part.graph.node]
    assert not {"ConvTranspose", "Exp", "Greater", "ScatterElements", "MaxUnpool", "Loop"} & set(kinds)
    assert kinds.count("MaxPool") == (3 if exported.name == "conv" else 0)


def test_metadata_are_complete_and_hold_no_paths(exported):
    model = onnx.load_from_string(exported.content)
    assert [entry.key for entry in model.metadata_props] == ["stm"]
    entry = json.loads(model.metadata_props[0].value)
    for key, value in exported.metadata.items():
        assert entry[key] == value
    assert entry["schema"] == 2
    assert entry["opset"] == exported.report.opset
    assert entry["answers"] == list(ANSWERS)
    assert entry["explanations"] == list(MAPS[exported.name])
    assert set(entry["refused"]) == set(METHODS) - set(MAPS[exported.name])
    assert entry["details"]["expected_gradients"] == {"draws": 6, "background": 3, "seed": 5}
    assert entry["details"]["integrated_gradients"]["steps"] in (4, 8, 16, 32)
    assert entry["precision"] == {"kind": "fp32"}
    assert entry["versions"]["torch"] == torch.__version__
    assert {"stm-lab", "python", "numpy", "onnx", "onnxruntime", "onnxscript"} < set(entry["versions"])
    age = datetime.now(UTC) - datetime.fromisoformat(entry["created"])
    assert timedelta(0) <= age + timedelta(seconds=1) < timedelta(hours=1)
    assert entry["calibration"] == {}, "numbers need none"
    assert entry["focusable"] is False, "numbers have no pixels"
    own = {
        "schema",
        "opset",
        "versions",
        "answers",
        "explanations",
        "focusable",
        "details",
        "refused",
        "precision",
        "calibration",
        "created",
    }
    assert set(entry) == {*exported.metadata, *own}
    assert b"/site-packages/" not in exported.content
    assert str(exported.bundle).encode() not in exported.content
