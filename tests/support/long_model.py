"""A toy model whose run takes as long as its image says, and ends only when it is told to."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOR_EVER = np.float32(1e12)
"""A value of an image that makes a run take weeks."""


def write(toy, path):
    """Write the toy's file, with a loop in front of the prediction of as many turns as the image's largest value."""
    model = onnx.load(toy.write(path))
    graph = model.graph
    kept = list(graph.node)
    for node in kept:
        node.output[:] = ["plain" if name == "prediction" else name for name in node.output]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still_going"]),
            helper.make_node("Tanh", ["state"], ["next_state"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "largest"], ["state_at_end"], body=body),
        helper.make_node("Mul", ["state_at_end", "nothing"], ["zero"]),
        helper.make_node("Add", ["plain", "zero"], ["prediction"]),
    ]
    del graph.node[:]
    graph.node.extend([*kept, *nodes])
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
