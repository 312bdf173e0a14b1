import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.model.subgraph import extract


def _run(model, names, feed):
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ["prediction"],
        ["distance"],
        ["gradient"],
        ["prediction", "distance"],
        ["prediction", "gradient", "distance"],
    ],
)
def test_the_part_computes_the_same_and_holds_no_more(toy, model_file, names):
    whole = model_file.read_bytes()
    part = extract(whole, names)
    model = onnx.load_from_string(part)
    onnx.checker.check_model(model, full_check=True)
    order = ("prediction", "gradient", "distance")
    assert [out.name for out in model.graph.output] == [name for name in order if name in names]
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    made = {name for node in model.graph.node for name in node.output}
    assert made <= used | set(names)
    feed = {"image": toy.images(3)}
    for name, values in _run(part, names, feed).items():
        np.testing.assert_array_equal(values, _run(whole, names, feed)[name])
    assert {p.key: p.value for p in model.metadata_props}.keys() == {"stm"}


def test_everything_asked_for_is_the_same_file(model_file):
    whole = model_file.read_bytes()
    assert onnx.load_from_string(extract(whole, ["prediction", "gradient", "distance"])) == onnx.load_from_string(whole)


def test_what_a_branch_takes_from_outside_is_kept():
    def branch(name, node):
        out = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out])

    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["x"], ["size"]),
            helper.make_node("Neg", ["x"], ["other"]),
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["positive"]),
            helper.make_node(
                "If",
                ["positive"],
                ["y"],
                then_branch=branch("a", helper.make_node("Mul", ["size", "two"], ["r"])),
                else_branch=branch("b", helper.make_node("Identity", ["size"], ["r"])),
            ),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "other")],
        [
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(2), "two"),
            numpy_helper.from_array(np.zeros(300, np.float32), "unused"),
        ],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    part = extract(whole, ["y"])
    model = onnx.load_from_string(part)
    assert "Neg" not in [node.op_type for node in model.graph.node]
    assert {tensor.name for tensor in model.graph.initializer} == {"zero", "two"}
    for x in ([1.0, -0.5], [-1.0, 0.5]):
        feed = {"x": np.array(x, np.float32)}
        np.testing.assert_array_equal(_run(part, ["y"], feed)["y"], _run(whole, ["y"], feed)["y"])


def test_an_optional_input_goes_where_nothing_needs_it(map_toy, map_file, toy):
    whole, images = map_file.read_bytes(), toy.images(3)
    for names, inputs in ((["prediction", "distance"], ["image"]), (["gradient"], ["image", "focus"])):
        part = extract(whole, names)
        model = onnx.load_from_string(part)
        onnx.checker.check_model(model, full_check=True)
        assert [value.name for value in model.graph.input] == inputs
        assert ("focus" in {tensor.name for tensor in model.graph.initializer}) == ("focus" in inputs)
        _run(part, names, {"image": images})
    for focus in ([3], [19, -1, 0]):
        found = _run(part, ["gradient"], {"image": images, "focus": np.array(focus)})["gradient"]
        np.testing.assert_allclose(found, map_toy.expected(images, np.broadcast_to(focus, 3)), rtol=1e-6)
    found = _run(part, ["gradient"], {"image": images})["gradient"]
    np.testing.assert_allclose(found, map_toy.expected(images, [-1] * 3), rtol=1e-6)
