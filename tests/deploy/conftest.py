"""A tiny model file of known arithmetic, as the exporter would write it."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SHAPE = (2, 4, 5)
SIZE = 40
EXPLAINED = 1


def describe():
    return {
        "schema": 1,
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


@pytest.fixture(scope="session")
def toy():
    return Toy()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, toy):
    return toy.write(tmp_path_factory.mktemp("model") / "toy.onnx")
