"""Files as CUDA gets them: the same numbers, which a processor can compute too."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.exporting.unpooling import add_unpool
from deploy.model import provider
from deploy.model.on_cuda import FUNCTIONS, UNPOOL, adapted, turns_of
from deploy.model.subgraph import extract
from support.exported_models import random_images


def _run(content, feed):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)


def _nodes(graph):
    """Every node, those of loops included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _pooled(kernel, size, *, function=True):
    """A file that sends values to the maxima of an image of 3 channels."""
    windows = [length // side for length, side in zip(size, kernel, strict=True)]
    pooling = {"kernel_shape": kernel, "strides": kernel}
    nodes = [
        helper.make_node("MaxPool", ["image"], ["largest", "where"], **pooling),
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node(UNPOOL, ["values", "where", "shape"], ["found"], **pooling),
    ]
    shapes = {"image": ["batch", 3, *size], "values": ["batch", 3, *windows], "found": ["batch", 3, *size]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(nodes, "pooled", [values["image"], values["values"]], [values["found"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if function:
        add_unpool(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(), windows


@pytest.mark.parametrize(("kernel", "size"), [((2, 2), (8, 6)), ((2, 3), (9, 7)), ((3, 2), (10, 11)), ((1, 2), (3, 4))])
def test_values_go_to_the_maxima_that_onnx_names(kernel, size):
    content, windows = _pooled(kernel, size)
    rng = np.random.default_rng(0)
    # Whole numbers: many are equal, and the first of them is the maximum.
    feed = {"image": rng.integers(0, 3, (5, 3, *size)), "values": rng.normal(size=(5, 3, *windows))}
    feed = {name: values.astype(np.float32) for name, values in feed.items()}
    changed = adapted(content)
    assert [node.domain for node in onnx.load_from_string(changed).graph.node] == ["", "", FUNCTIONS]
    (own,), (wanted,) = _run(changed, feed), _run(content, feed)
    np.testing.assert_array_equal(own, wanted)
    assert np.count_nonzero(wanted) == wanted.shape[0] * 3 * windows[0] * windows[1]


def test_a_file_without_the_function_stays_as_it_is():
    content, _ = _pooled((2, 2), (8, 6), function=False)
    assert adapted(content) is content


@pytest.mark.parametrize(
    "content",
    [bytes(2**20), b"\xff" * 2**20, b"\x3a" + b"\xff" * 2**20, _pooled((2, 2), (8, 6))[0][:-9], b"not a model"],
    ids=["zeros", "ones", "no length", "cut", "text"],
)
def test_what_is_no_model_is_refused_at_once(content):
    with pytest.raises(ValueError, match=r"at byte \d"):
        adapted(content)


def _line(points, shape, turns, plain=""):
    """The constants of a line as a file has them, but for one that is not written as bytes."""
    tensors = []
    for name, values in {"index": np.arange(points), "shape": np.array(shape), "turns": np.array(turns)}.items():
        content = values.ravel().tolist() if name == plain else values.tobytes()
        tensors.append(helper.make_tensor(f"way/{name}", TensorProto.INT64, values.shape, content, raw=name != plain))
    return helper.make_model(helper.make_graph([], "line", [], [], tensors)).SerializeToString()


@pytest.mark.parametrize(
    ("points", "shape", "turns"),
    [
        (32, (1, 256, 256), 4),
        (8, (1, 256, 256), 1),
        (32, (1, 64, 64), 1),
        (6, (3, 512, 512), 6),
        (50, (1, 128, 128), 2),
    ],
)
def test_a_turn_takes_as_many_points_as_the_memory_of_a_gpu_is_meant_to_hold(points, shape, turns):
    written = _line(points, shape, points)
    graph = onnx.load_from_string(adapted(written)).graph
    assert {one.name: numpy_helper.to_array(one).tolist() for one in graph.initializer}["way/turns"] == turns
    assert adapted(_line(points, shape, turns)) == _line(points, shape, turns)


@pytest.mark.parametrize("name", ["shape", "turns"])
def test_numbers_that_are_written_otherwise_are_left_alone(name):
    written = _line(32, (1, 256, 256), 32, plain=name)
    assert adapted(written) is written


@pytest.mark.parametrize(
    ("points", "numbers", "most", "turns"),
    [(8, 100, 250, 4), (8, 100, 99, 8), (9, 100, 250, 9), (9, 1, 8, 3), (1, 5, 1, 1)],
)
def test_turns_take_equally_many_points(points, numbers, most, turns):
    assert turns_of(points, numbers, most) == turns


def _turning(content, name, turns):
    """The file with another number of turns along lines."""
    model = onnx.load_from_string(content)
    own = next(one for one in model.graph.initializer if one.name == f"{name}/turns")
    own.CopyFrom(numpy_helper.from_array(np.array(turns), own.name))
    return model.SerializeToString()


@pytest.mark.parametrize("name", ["conv", "mlp"])
def test_a_whole_file_gives_the_same_without_what_cuda_lacks(exports, name):
    exported = exports[name]
    images = random_images(exported.shape, 3, 5)
    names = [out.name for out in onnx.load_from_string(exported.content).graph.output]
    changed = adapted(exported.content)
    kinds = [(node.op_type, node.domain) for node in _nodes(onnx.load_from_string(changed).graph)]
    assert (UNPOOL, "") not in kinds
    assert ((UNPOOL, FUNCTIONS) in kinds) == (name == "conv")
    for output, own, wanted in zip(
        names, _run(changed, {"image": images}), exported.session.run(names, {"image": images}), strict=True
    ):
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max(), err_msg=output)


@pytest.mark.parametrize("name", ["integrated_gradients", "expected_gradients"])
def test_a_line_is_taken_in_one_turn_with_the_same_result(exports, name):
    part = extract(exports["conv"].content, [name])
    images = {"image": random_images(exports["conv"].shape, 3, 5)}
    (wanted,) = _run(part, images)
    halves = _turning(part, name, 2)
    (own,) = _run(halves, images)
    np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    assert onnx.load_from_string(adapted(halves)) == onnx.load_from_string(adapted(_turning(part, name, 1)))
    assert onnx.load_from_string(adapted(halves)) != onnx.load_from_string(halves)


def test_a_session_on_cuda_opens_what_cuda_computes_best(monkeypatch):
    content, _ = _pooled((2, 2), (8, 6))
    opened = {}

    def session(given, settings, *, providers, enable_fallback):
        opened[len(providers)] = given

    monkeypatch.setattr(provider.onnxruntime, "InferenceSession", session)
    provider.open_part(content, provider.Runtime(), "cuda")
    provider.open_part(content, provider.Runtime(), "cpu")
    assert opened == {1: content, 2: adapted(content)}
