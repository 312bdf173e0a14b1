"""Files of 16 and 8 bits: how far off their answers are, or that they are refused."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from deploy.exporting import write as writing
from deploy.exporting.config import ExportConfig
from deploy.exporting.precision import judge, judge_rows
from deploy.model.session import Session
from stm_models.errors import InputError
from stm_models.networks import bundle as bundles
from support import exported_models


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
            with pytest.raises(InputError, match=message):
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
        (lower,) = small.run(["lower"], {"image": kept})
        error = np.abs(lower - one.session.run(["lower"], {"image": kept})[0]).max(axis=0)
        assert list(found["ends"]) == one.targets
        assert (list(found["ends"].values()) >= error * 0.999).all()
        # What novelty and interval are computed with is never rounded.
        stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "a.onnx").graph.initializer]
        novelty = bundles.load(one.bundle).novelty
        for value in (novelty.appearance.mean, novelty.appearance.directions, novelty.directions):
            assert any(np.array_equal(np.sort(part, None), np.sort(value.numpy(), None)) for part in stored)
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
        # A row's answers are its own, whatever another client's image in the batch is.
        names = session.answer_names
        alone = [session.run(kept[row : row + 1], names) for row in range(4)]
        beside = session.run(np.concatenate([kept[:4], 1000 * kept[:1]]), names)
        for name in names:
            np.testing.assert_allclose(
                beside[name][:4], np.concatenate([one[name] for one in alone]), rtol=1e-4, atol=1e-4
            )


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A file of 16 bits that was asked to hold a map, and the files that were timed."""
    one = exported_models.make("mlp", tmp_path_factory.mktemp("half") / "mlp")
    config = ExportConfig(precision="fp16", explanations=("gradient",), budget={"U": 5.0, "gap": 5.0})
    timed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "latencies", lambda contents, _: timed.update(contents) or {})
        left_out = {"guided": "the model has no ONNX graph"}
        reply = writing.write(one.bundle, one.bundle.parent / "a.onnx", one.metadata, config, left_out)
    return SimpleNamespace(reply=reply, timed=timed, bundle=bundles.load(one.bundle))


def test_a_smaller_file_is_timed_beside_a_full_one_that_has_no_maps_either(half):
    outputs = {
        kind: [value.name for value in onnx.load_from_string(content).graph.output]
        for kind, content in half.timed.items()
    }
    assert outputs["fp32"] == outputs["fp16"] == ["prediction", "lower", "upper", "distance", "novelty"]
    assert half.reply["refused"]["gradient"] == "a fp16 file has none: derivatives need the full precision"
    # What has no graph, and would not be there with one either.
    assert half.reply["refused"]["guided"] != "the model has no ONNX graph"


def test_of_16_bits_are_the_weights_that_were_learnt_alone(half):
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(half.timed["fp16"]).graph.initializer]
    halves = [part for part in stored if part.dtype == np.float16]
    weights = [value.numpy() for value in half.bundle.model.network.parameters() if value.numel() >= 64]
    assert sorted(part.size for part in halves) == sorted(part.size for part in weights)
    for value in (half.bundle.model.pixel_mean, half.bundle.model.pixel_scale):
        assert any(np.array_equal(part, value.numpy()) for part in stored)


def _judged(novelty, of=(0.8, 0.3, 0.04)):
    """Two files that differ in their novelty alone."""
    full, small = (
        {"prediction": np.arange(3.0)[:, None], "novelty": np.array(values, np.float32)} for values in (of, novelty)
    )
    return judge(
        lambda _: small, lambda _: full, np.zeros((3, 1, 2, 2)), [{"name": "U", "unit": "eV"}], {}, "int8", [1.0]
    )


def test_a_smaller_file_calls_no_image_otherwise():
    assert _judged((0.8, 0.1, 0.03))["novelty"] == pytest.approx(0.2)
    for novelty, value in (((0.8, 0.045, 0.04), "0.045 instead of 0.3"), ((0.8, 0.3, 0.001), "0.001 instead of 0.04")):
        with pytest.raises(InputError, match=f"int8 file calls 1 of 3 held-out images otherwise: .* {value}"):
            _judged(novelty)


def test_a_change_that_nobody_reads_anything_from_is_no_other_verdict():
    assert _judged((0.8, 0.3, 0.049), of=(0.8, 0.3, 0.0505))["novelty"] == pytest.approx(0.0015, rel=1e-3)
    with pytest.raises(InputError, match="calls 1 of 3"):
        _judged((0.8, 0.3, 0.045), of=(0.8, 0.3, 0.0505))


def test_the_budget_is_of_the_spread_of_the_training_targets_whatever_images_are_judged():
    full, small = ({"prediction": np.array([[3.0], [3.0 + error]])} for error in (0.0, 0.015))
    images = np.zeros((2, 1, 2, 2))
    targets = [{"name": "U", "unit": "eV"}]
    found = judge(lambda _: small, lambda _: full, images, targets, {}, "int8", [2.0])
    assert (found["budget"], found["images"]) == ({"U": 0.02}, 2)
    with pytest.raises(InputError, match=r"on 2 held-out images, budget 0\.01 eV"):
        judge(lambda _: small, lambda _: full, images, targets, {}, "int8", [1.0])


def test_the_change_of_novelty_is_measured_on_held_out_images(half):
    images = half.bundle.heldout.numpy()
    small, full = (
        onnxruntime.InferenceSession(half.timed[kind], providers=["CPUExecutionProvider"]).run(
            ["novelty"], {"image": images}
        )[0]
        for kind in ("fp16", "fp32")
    )
    assert half.reply["precision"]["novelty"] == pytest.approx(np.abs(small - full).max(), abs=1e-6)


def _shared_scale(share):
    """A file of a mean of each image, of which a share is rounded with one scale for the whole batch."""

    def run(images):
        means = images.mean(axis=(1, 2, 3))
        step = np.abs(means).max() / 127
        return {"prediction": ((1 - share) * means + share * step * np.rint(means / step))[:, None]}

    return run


def test_a_file_that_mixes_the_rows_of_a_batch_is_refused():
    images = np.random.default_rng(0).random((20, 1, 4, 4))
    for share in (0, 1e-3):
        judge_rows(_shared_scale(share), images, {"U": 0.02}, "int8")
    with pytest.raises(InputError, match=r"int8 file answers U 0\.\d+ otherwise where an odd image is in the batch"):
        judge_rows(_shared_scale(1), images, {"U": 0.02}, "int8")


def test_a_budget_of_nothing_leaves_float32_its_rounding():
    images = np.random.default_rng(0).random((3, 1, 4, 4))
    judge_rows(_shared_scale(1e-5), images, {"U": 0.0}, "fp16")
    with pytest.raises(InputError, match="choose another precision"):
        judge_rows(_shared_scale(1e-2), images, {"U": 0.0}, "fp16")
