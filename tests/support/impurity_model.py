"""A model file of known arithmetic for the task impurity: its score is the mean of the maps, its gradient a third."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 48
PIXEL = 0.46875  # nm
BIASES = (-0.23, -0.105, 0.02)  # V
ABOUT = {
    "schema": 2, "task": "impurity",
    "input": {
        "kind": "didv_maps", "channels": 3, "height": SIDE, "width": SIDE, "unit": "prepared dI/dV", "biases": BIASES,
        "half_width": 0.0625, "reach": 0.125, "material": "Au(111)", "band_bottom": -0.52, "pixel_nm": PIXEL,
        "preparation": {"level": True, "plane": True, "high_pass": 0.0, "lines": False, "inside": 1.0},
    },
    "targets": [{"name": "heat", "unit": "1"}], "explained": 0, "run_id": "a-run", "focusable": True,
    "data": {"digest": "d" * 16, "recipe": "r" * 16}, "explanations": ["gradient"],
    "distance": {"quantiles": {"0.99": 100.0}}, "metrics": {"f1": 0.9},
}  # fmt: skip


def write(path):
    """Write the file."""
    field, maps = [1, SIDE, SIDE], [3, SIDE, SIDE]
    nodes = [
        helper.make_node("ReduceMean", ["image", "channel"], ["prediction"], keepdims=1),
        helper.make_node("Flatten", ["prediction"], ["flat"], axis=1),
        helper.make_node("ReduceMax", ["flat", "channel"], ["distance"], keepdims=0),
        helper.make_node("ArgMax", ["flat"], ["best"], axis=1),
        helper.make_node("Unsqueeze", ["focus", "channel"], ["given"]),
        helper.make_node("Less", ["given", "zero"], ["unsaid"]),
        helper.make_node("Where", ["unsaid", "best", "given"], ["place"]),
        helper.make_node("Equal", ["place", "pixels"], ["here"]),
        helper.make_node("Cast", ["here"], ["once"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["once", "map"], ["mask"]),
        helper.make_node("Mul", ["mask", "thirds"], ["gradient"]),
    ]
    constants = {
        "channel": np.array([1]), "zero": np.array(0), "pixels": np.arange(SIDE * SIDE)[None], "focus": np.array([-1]),
        "map": np.array([-1, *field]), "thirds": np.full((1, 3, 1, 1), 1 / 3, np.float32),
    }  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "impurity",
        [value("image", TensorProto.FLOAT, ["batch", *maps]), value("focus", TensorProto.INT64, ["focuses"])],
        [value("prediction", TensorProto.FLOAT, ["batch", *field]), value("gradient", TensorProto.FLOAT, ["b", *maps]),
         value("distance", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"stm": json.dumps(ABOUT)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_field(path, places):
    """Write a stack of maps over bias with a bump at each (y, x) in px."""
    y, x = np.mgrid[:SIDE, :SIDE]
    bumps = sum(np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8) for row, column in places)
    np.savez(path, data=np.stack([bumps] * 3), bias=BIASES, size_nm=(SIDE * PIXEL, SIDE * PIXEL))
    return path
