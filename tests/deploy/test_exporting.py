"""Exported files against the models that they came from."""

import hashlib
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from scipy import special

from deploy.exporting import export as module
from deploy.exporting import graph
from deploy.exporting import metadata as about
from deploy.exporting import write as writing
from deploy.exporting.config import ExportConfig
from deploy.exporting.export import ExportError, export
from deploy.exporting.parts import Parts
from deploy.serving.session import Session
from deploy.serving.subgraph import extract
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.explain.methods import METHODS, PATHS, Steps, compute
from stm_models.explain.references import references
from stm_models.networks import bundle as bundles
from stm_models.networks.model import Model
from stm_models.networks.registry import create, default_options
from stm_models.signal.conformal import TailTable
from stm_models.training.appearance import Appearance
from stm_models.training.intervals import Interval, Residuals
from stm_models.training.novelty import Novelty
from stm_models.training.predict import features

# Odd sizes: pooling drops or completes rows. Two targets: the explained one is not the first.
CASES = {
    "mlp": {"shape": (2, 23, 26), "targets": ["gap", "U"], "explained": 1, "options": {"pool": 3}},
    "conv": {"shape": (1, 26, 27), "targets": ["U"], "explained": 0, "options": {"hidden": 32}},
}
MAPS = {
    "mlp": ("gradient", "grad_x_input", "integrated_gradients", "expected_gradients"),
    "conv": ("gradient", "grad_x_input", "grad_cam", "guided", "integrated_gradients", "expected_gradients"),
}
FINE = ExportConfig(explanations="all", ig_steps=4, eg_draws=6, background=3, seed=5)


ANSWERS = ("prediction", "lower", "upper", "distance", "novelty")


def _images(shape, count, seed):
    rng = np.random.default_rng(seed)
    spread = np.exp(np.random.default_rng(99).normal(size=shape))
    return (2.0 + spread * rng.normal(size=(count, *shape))).astype(np.float32)


def _make(name, folder):
    case = CASES[name]
    images, heldout = _images(case["shape"], 24, 0), _images(case["shape"], 16, 1)
    targets = np.random.default_rng(2).normal(3.0, 2.0, (24, len(case["targets"])))
    options = {**default_options(name), **case["options"]}
    network = create(name, case["shape"], len(case["targets"]), options, seed=4)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # untrained statistics would hide a mistake
            layer.running_mean.copy_(torch.linspace(-0.2, 0.5, layer.num_features))
            layer.running_var.copy_(torch.linspace(0.3, 2.0, layer.num_features))
    model = Model.for_data(network, images, targets).eval()
    appearance = Appearance.fit(images)
    known, held_out = (features(model, part, appearance=appearance) for part in (images, heldout))
    novelty, quantiles = Novelty.fit(known, appearance).calibrated(
        {"clean": (held_out, np.arange(16)), "noisy": (held_out[:9] * 1.5, np.arange(9))}
    )
    hints = novelty.hints(torch.from_numpy(held_out), torch.zeros(16, 0)).numpy()
    errors = np.random.default_rng(8).normal(0, 0.3, (16, len(case["targets"])))
    calibration = Residuals(hints, errors, np.array([f"c{row}" for row in range(16)]), np.arange(16) % 2)
    spread = Residuals(hints, errors[::-1].copy(), np.array([f"s{row}" for row in range(16)]), np.arange(16) % 2)
    interval = Interval.fit(spread, calibration, level=0.8)
    channels, height, width = case["shape"]
    info = {
        "network": name,
        "options": options,
        "task": "hubbard",
        "input": {"kind": "ft_ldos", "channels": channels, "height": height, "width": width, "kx_max": 1.25},
        "targets": [{"name": n, "unit": "eV", "description": ""} for n in case["targets"]],
        "explained": case["explained"],
        "data": {"recipe": "r1", "digest": "d1"},
    }
    bundles.save(folder, model, novelty, info, references(images, heldout, 0), interval)
    metadata = {key: info[key] for key in ("task", "input", "targets", "explained", "data")}
    metadata |= {
        "run_id": "run7",
        "git_commit": None,
        "metrics": {"mae": 0.25},
        "distance": {"quantiles": quantiles},
        "interval": {"level": 0.8, "groups": 16},
        "novelty": {"groups": 16, "sets": ["clean", "noisy"]},
    }
    return SimpleNamespace(name=name, bundle=folder, metadata=metadata, **case)


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    made = {name: _make(name, folder / name) for name in CASES}
    mistaken = {**made["conv"].metadata, "task": "other"}
    with ThreadPoolExecutor(2) as pool:
        reports = {
            name: pool.submit(export, one.bundle, folder / "new" / f"{name}.onnx", one.metadata, FINE)
            for name, one in made.items()
        }
        mistake = pool.submit(export, made["conv"].bundle, folder / "mistaken" / "a.onnx", mistaken)
    made["conv"].mistake = mistake.exception()
    for name, one in made.items():
        one.report = reports[name].result()
        one.content = one.report.path.read_bytes()
        one.session = onnxruntime.InferenceSession(one.content, providers=["CPUExecutionProvider"])
    return made


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
    images = _images(exported.shape, batch, 10 + batch)
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
    images = np.concatenate([_images(exported.shape, 6, 1), 3 * _images(exported.shape, 2, 40)])
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
    image = _images(exported.shape, 1, 20)
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
    images = _images(exported.shape, 5, 31)
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


def test_graph_that_differs_writes_nothing_and_keeps_the_old_file(exports, tmp_path, monkeypatch):
    one = exports["mlp"]

    def build(*arguments):
        model = onnx.load_from_string(one.content)
        del model.metadata_props[:]
        tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
        values = numpy_helper.to_array(tensor) * np.float32(1.01)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(writing, "build", build)
    old = tmp_path / "old.onnx"
    old.write_bytes(b"precious")
    for out in (old, tmp_path / "new.onnx"):
        with pytest.raises(ExportError, match="relative error"):
            writing.write(one.bundle, out, one.metadata)
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]
    assert old.read_bytes() == b"precious"


def test_operator_without_counterpart_is_an_export_error():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x[:, 0] + x[:, 0].mT)

    with pytest.raises(ExportError, match=r"no ONNX graph: .*eigh"):
        graph.build(Parts(lambda x: {"prediction": Odd()(x)}, {}), (1, 4, 4))


def test_worker_tells_a_users_mistake_in_one_line(exports):
    mistake = exports["conv"].mistake
    assert isinstance(mistake, InputError)
    assert re.search(r'task is "other", but .*conv was trained with "hubbard"', str(mistake))
    assert "\n" not in str(mistake)
    assert list((exports["conv"].bundle.parent / "mistaken").iterdir()) == []


def test_maps_without_an_onnx_form_are_left_out_and_told(exports, tmp_path, monkeypatch):
    asked = []

    def ask(request):
        asked.append(request)
        if request.get("trial") == "guided" or ("trial" not in request and not request["left_out"]):
            return {"error": "graph", "message": "no ONNX form: reason"}
        if "trial" in request:
            return {}
        return {"sha256": "s", "opset": 20, "parity": {}, "size_bytes": 1, "explanations": ["gradient"],
                "refused": request["left_out"], "precision": {}}  # fmt: skip

    monkeypatch.setattr(module, "_ask", ask)
    report = export(exports["conv"].bundle, tmp_path / "a.onnx", exports["conv"].metadata)
    assert report.refused == {"guided": "no ONNX form: reason"}
    assert [request.get("trial", "all") for request in asked] == [
        "all", None, "gradient", "grad_x_input", "grad_cam", "guided", "all",
    ]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_files_answer_within_a_budget_in_physical_units_or_are_refused(exports, tmp_path, precision):
    one = exports["mlp"]
    for kind in ("fp32", precision):
        config = ExportConfig(precision=kind, explanations=(), budget={"u": 5.0})
        with pytest.raises(InputError, match=r"unknown target of export.budget 'u'.*U"):
            writing.write(one.bundle, tmp_path / "a.onnx", one.metadata, config)
    refused = rf"{precision} file answers U up to .* eV off on \d+ held-out images, budget 1e-07 eV"
    for limit, message in ((1e-7, refused), (5.0, None)):
        config = ExportConfig(precision=precision, explanations=(), budget={"U": limit, "gap": 5.0})
        if message:
            with pytest.raises(ExportError, match=message):
                writing.write(one.bundle, tmp_path / "a.onnx", one.metadata, config)
            assert list(tmp_path.iterdir()) == []
            continue
        reply = writing.write(one.bundle, tmp_path / "a.onnx", one.metadata, config)
        assert reply["size_bytes"] < 0.7 * one.report.size_bytes
        found = reply["precision"]
        assert 0 < found["error"]["U"] < found["budget"]["U"] == 5.0
        assert {kind: set(times) for kind, times in found["seconds"].items()} == {
            kind: {"1", "16"} for kind in ("fp32", precision)
        }
        small = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
        kept = bundles.load(one.bundle).heldout.numpy()
        got = small.run(["prediction"], {"image": kept})[0]
        want = bundles.load(one.bundle).model(torch.from_numpy(kept)).numpy()
        np.testing.assert_allclose(np.abs(got - want).max(axis=0), list(found["error"].values()), rtol=0.05, atol=1e-5)
        # What the distance is computed from is never in 8 bits.
        if precision == "int8":
            (got,) = small.run(["distance"], {"image": kept})
            full = onnxruntime.InferenceSession(str(one.report.path), providers=["CPUExecutionProvider"])
            (want,) = full.run(["distance"], {"image": kept})
            assert np.abs(want / got - 1).max() < 0.05  # features come through the network
            weights = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "a.onnx").graph.initializer}
            assert sum(kind == onnx.TensorProto.INT8 for kind in weights.values()) >= 3
        session = Session(tmp_path / "a.onnx", provider="cpu")
        assert session.metadata.precision["kind"] == precision
        assert session.metadata.explanations == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"explanations": ("lime",)}, "unknown explanation 'lime'"),
        ({"ig_step": 3}, "ig_steps"),
        ({"ig_steps": 0}, "ig_steps"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_wrong_settings_of_an_export_are_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        validate(ExportConfig, values, "export")
    assert "\n" not in str(caught.value)


def test_model_without_novelty_is_refused(exports, tmp_path):
    one = exports["mlp"]
    bundle = bundles.load(one.bundle)
    bundles.save(tmp_path / "bare", bundle.model, None, bundle.info)
    with pytest.raises(InputError, match="no distance to the training data"):
        writing.write(tmp_path / "bare", tmp_path / "a.onnx", one.metadata)


def test_an_interval_that_the_metadata_do_not_know_is_refused(exports, tmp_path):
    one = exports["mlp"]
    with pytest.raises(InputError, match=r"interval is None, but .* with one"):
        writing.write(one.bundle, tmp_path / "a.onnx", {**one.metadata, "interval": None})


def _valid():
    return {
        "task": "t",
        "input": {},
        "targets": [{"name": "U"}],
        "explained": 0,
        "data": {"recipe": "r", "digest": "d"},
        "run_id": None,
        "git_commit": None,
        "metrics": {},
        "distance": {"quantiles": {"0.5": 1.0}},
    }


@pytest.mark.parametrize("key", _valid())
def test_missing_metadata_are_named(key):
    values = _valid()
    assert about.check(values) == {**values, "calibration": {}, "interval": None, "novelty": None}
    del values[key]
    with pytest.raises(InputError, match=key):
        about.check(values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("explained", 1, "explained is 1, but there are 1 targets"),
        ("metrics", {"mae": float("nan")}, "metrics"),
        ("input", {"a": float("inf")}, "finite"),
        ("input", {"a": object()}, "metadata of the export"),
        ("distance", {"quantiles": {}}, "quantiles"),
        ("data", {"recipe": "r"}, "digest"),
        ("versions", {}, "unknown key 'versions'"),
    ],
)
def test_wrong_metadata_are_refused(key, value, message):
    with pytest.raises(InputError, match=message):
        about.check({**_valid(), key: value})


@pytest.mark.parametrize("out", ["file/sub/a.onnx", "folder.onnx", "a.pt"])
def test_unwritable_out_is_refused_at_once(tmp_path, out):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InputError, match=r"cannot write|ends in \.onnx"):
        export(tmp_path / "bundle", tmp_path / out, _valid())


def test_missing_bundle_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="no model bundle at"):
        export(tmp_path / "nothing", tmp_path / "a.onnx", _valid())


@pytest.mark.parametrize(
    ("code", "out", "err", "message"),
    [
        (1, json.dumps({"error": "export", "message": "table"}), "noise", "^table$"),
        (1, "", "x" * 9000 + "\nValueError: odd", "the exporting process failed(.|\n)*ValueError: odd$"),
        (-9, "", "", "ended by signal 9(.|\n)*memory"),
    ],
)
def test_failures_of_the_worker_are_told(tmp_path, monkeypatch, code, out, err, message):
    done = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    old = tmp_path / "a.onnx"
    old.write_bytes(b"precious")
    with pytest.raises(ExportError, match=message) as caught:
        export(tmp_path, old, _valid())
    assert len(str(caught.value)) < 2000
    assert old.read_bytes() == b"precious"
