"""Tiny model files of known arithmetic, as the exporter would write them."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (2, 4, 5)
SIZE = 40
EXPLAINED = 1


def describe():
    return {
        "schema": 2,
        "task": "toy",
        "input": {"kind": "map", "channels": 2, "height": 4, "width": 5, "unit": "a.u.", "kx_max": 1.5},
        "targets": [{"name": "U", "unit": "eV", "description": "first"}, {"name": "gap", "unit": "eV"}],
        "explained": EXPLAINED,
        "data": {"recipe": "r" * 8, "digest": "d" * 8},
        "run_id": "run",
        "git_commit": "c" * 40,
        "versions": {"torch": "2"},
        "opset": 18,
        "metrics": {"mae": 0.1},
        "distance": {"quantiles": {"0.5": 0.4, "0.95": 0.6, "0.99": 0.7, "1.0": 0.9}},
        "explanations": ["gradient"],
        "created": "2024-01-01T00:00:00+00:00",
    }


class Toy:
    """prediction = (W x + b)^2, its gradient, and distance = mean |x|; also in numpy."""

    shape = SHAPE
    weight = np.random.default_rng(3).normal(size=(SIZE, 2)).astype(np.float32)
    bias = np.array([0.5, -1.0], dtype=np.float32)

    def images(self, rows, seed=0):
        return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(np.float32)

    def expected(self, images):
        flat = images.reshape(len(images), SIZE)
        inner = flat @ self.weight + self.bias
        gradient = 2 * inner[:, EXPLAINED, None] * self.weight[None, :, EXPLAINED]
        return {
            "prediction": inner**2,
            "gradient": gradient.reshape(images.shape),
            "distance": np.abs(flat).mean(axis=1),
        }

    def describe(self):
        return describe()

    def write(self, path, metadata=True, trap=False, change=None):
        """Write the file; ``trap`` adds an output whose computation always fails."""
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "W", "b"], ["inner"]),
            helper.make_node("Mul", ["inner", "inner"], ["prediction"]),
            helper.make_node("Gather", ["inner", "column"], ["value"], axis=1),
            helper.make_node("Mul", ["value", "twice_row"], ["slope"]),
            helper.make_node("Reshape", ["slope", "map"], ["gradient"]),
            helper.make_node("Abs", ["flat"], ["size"]),
            helper.make_node("ReduceMean", ["size", "axis"], ["distance"], keepdims=0),
        ]
        constants = {
            "W": self.weight,
            "b": self.bias,
            "column": np.array([EXPLAINED], dtype=np.int64),
            "twice_row": 2 * self.weight[None, :, EXPLAINED],
            "map": np.array([-1, *SHAPE], dtype=np.int64),
            "axis": np.array([1], dtype=np.int64),
        }
        outputs = [
            helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("gradient", TensorProto.FLOAT, ["batch", *SHAPE]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]),
        ]
        if trap:
            constants["wrong"] = np.array([7, 7], dtype=np.int64)
            nodes.append(helper.make_node("Reshape", ["flat", "wrong"], ["trap"]))
            outputs.append(helper.make_tensor_value_info("trap", TensorProto.FLOAT, [7, 7]))
        graph = helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE])],
            outputs,
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        if metadata is not False:
            text = metadata if isinstance(metadata, str) else json.dumps({**describe(), **(change or {})})
            helper.set_model_props(model, {"stm": text})
        onnx.save(model, path)
        return path


class MapToy:
    """prediction = x0^2 of the first channel, and its gradient at one pixel: the optional ``focus``."""

    shape = SHAPE

    def expected(self, images, focus):
        """The gradient for focuses (batch,)."""
        flat = images[:, 0].reshape(len(images), -1)
        place = np.where(np.asarray(focus) < 0, (flat**2).argmax(axis=1), focus)
        gradient = np.zeros_like(images)
        for row, (y, x) in enumerate(zip(*np.unravel_index(place, SHAPE[1:]), strict=True)):
            gradient[row, 0, y, x] = 2 * images[row, 0, y, x]
        return gradient

    def write(self, path, focusable=True, optional=True):
        """Write the file; with ``optional=False`` the focus has no value of its own."""
        pixels = SHAPE[1] * SHAPE[2]
        nodes = [
            helper.make_node("Gather", ["image", "channel"], ["heat"], axis=1),
            helper.make_node("Mul", ["heat", "heat"], ["prediction"]),
            helper.make_node("Flatten", ["prediction"], ["flat"], axis=1),
            helper.make_node("ReduceMax", ["flat", "axis"], ["distance"], keepdims=0),
            helper.make_node("ArgMax", ["flat"], ["best"], axis=1),
            helper.make_node("Unsqueeze", ["focus", "axis"], ["given"]),
            helper.make_node("Less", ["given", "zero"], ["unsaid"]),
            helper.make_node("Where", ["unsaid", "best", "given"], ["place"]),
            helper.make_node("Equal", ["place", "pixels"], ["here"]),
            helper.make_node("Cast", ["here"], ["once"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["once", "map"], ["mask"]),
            helper.make_node("Mul", ["mask", "slopes"], ["factor"]),
            helper.make_node("Mul", ["image", "factor"], ["gradient"]),
        ]
        constants = {
            "channel": np.array([0]), "axis": np.array([1]), "zero": np.array(0), "pixels": np.arange(pixels)[None],
            "map": np.array([-1, 1, *SHAPE[1:]]), "slopes": np.array([2, 0], np.float32).reshape(1, 2, 1, 1),
            **({"focus": np.array([-1])} if optional else {}),
        }  # fmt: skip
        graph = helper.make_graph(
            nodes,
            "maps",
            [
                helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE]),
                helper.make_tensor_value_info("focus", TensorProto.INT64, ["focuses"]),
            ],
            [
                helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 1, *SHAPE[1:]]),
                helper.make_tensor_value_info("gradient", TensorProto.FLOAT, ["batch", *SHAPE]),
                helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]),
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        about = {**describe(), "targets": describe()["targets"][:1], "explained": 0, "focusable": focusable}
        helper.set_model_props(model, {"stm": json.dumps(about)})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path
