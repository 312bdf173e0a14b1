"""Attribution along lines as loops in the ONNX graph, around the nodes that compute the gradient.

Nothing is traced for it: a loop's body is a copy of those nodes, and reads the weights of the graph around it. Each
turn takes one image and a few points of its line, so that memory does not grow with points or batch. How many turns
there are is one number of the graph, so that a server may take other ones than the processor's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from deploy.exporting.nodes import ancestors, reads
from deploy.model.on_cuda import turns_of
from stm_models.explain.path import Path

__all__ = ["GRADIENT", "PLACE", "add_path"]

GRADIENT = "gradient"
PLACE = "place"
"""The graph's own output that tells which pixel of an answered map is explained; it is dropped in the end."""
_NUMBERS = 2**14  # in one turn; more leave the processor's cache


def add_path(proto: Any, name: str, path: Path, inputs: tuple[str, ...]) -> None:
    """Add to a graph with the output ``gradient`` the output ``name``: `stm_models.explain.path.attribute`.

    Parameters
    ----------
    proto : onnx.ModelProto
        Changed in place.
    inputs : tuple of str
        Name of the image and, of a focusable graph, of the focus.
    """
    graph = proto.graph
    shape = path.bases.shape[1:]
    turns = turns_of(len(path), int(np.prod(shape)), _NUMBERS)

    def own(part: str) -> str:
        return f"{name}/{part}"

    constants = {
        "bases": path.bases,
        "index": path.index,
        "alpha": path.alpha.reshape(-1, 1, 1, 1),
        "weight": path.weight.reshape(-1, 1, 1, 1),
        "turns": np.array(turns),
        "first": np.array([0]),
        "second": np.array([1]),
        "rest": np.array([-1]),
        "whole": np.array([1, 1, 1]),
        "shape": np.array(shape),
    }
    graph.initializer.extend(numpy_helper.from_array(value, own(key)) for key, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", [own("turns"), own("first")], [own("split")]),
            helper.make_node("Concat", [own("split"), own("rest")], [own("numbers")], axis=0),
            helper.make_node("Concat", [own("numbers"), own("whole")], [own("factors")], axis=0),
            helper.make_node("Concat", [own("rest"), own("split"), own("shape")], [own("images")], axis=0),
            helper.make_node("Reshape", [own("index"), own("numbers")], [own("index/turns")]),
            helper.make_node("Reshape", [own("alpha"), own("factors")], [own("alpha/turns")]),
            helper.make_node("Reshape", [own("weight"), own("factors")], [own("weight/turns")]),
            helper.make_node("Shape", [inputs[0]], [own("batch")], start=0, end=1),
            helper.make_node("Squeeze", [own("batch"), own("first")], [own("rows")]),
            helper.make_node("Mul", [own("rows"), own("turns")], [own("count")]),
            helper.make_node("Loop", [own("count"), ""], [own("parts")], body=_body(graph, name, inputs)),
            helper.make_node("Reshape", [own("parts"), own("images")], [own("apart")]),
            helper.make_node("ReduceSum", [own("apart"), own("second")], [name], keepdims=0),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))


def _body(graph: Any, name: str, inputs: tuple[str, ...]) -> Any:
    """Return the loop's body: from the turn's number to the (1, C, H, W) share of its points."""

    def own(part: str) -> str:
        return f"{name}/turn/{part}"

    def outer(part: str) -> str:
        return f"{name}/{part}"

    renamed = dict(zip(inputs, (own("point"), own("pixel")), strict=False))
    copies = []
    for node in _between(graph.node, inputs, GRADIENT):
        copy = NodeProto()
        copy.CopyFrom(node)
        for output in node.output:
            if output:
                renamed[output] = own(output)
        _rename(copy, renamed)
        copies.append(copy)
    nodes = [
        helper.make_node("Div", [own("turn"), outer("turns")], [own("number")]),
        helper.make_node("Mod", [own("turn"), outer("turns")], [own("part")]),
        helper.make_node("Unsqueeze", [own("number"), outer("first")], [own("row")]),
        helper.make_node("Gather", [inputs[0], own("row")], [own("image")]),
        helper.make_node("Gather", [outer("index/turns"), own("part")], [own("which")]),
        helper.make_node("Gather", [outer("bases"), own("which")], [own("base")]),
        helper.make_node("Gather", [outer("alpha/turns"), own("part")], [own("alpha")]),
        helper.make_node("Gather", [outer("weight/turns"), own("part")], [own("weight")]),
        helper.make_node("Sub", [own("image"), own("base")], [own("line")]),
        helper.make_node("Mul", [own("alpha"), own("line")], [own("step")]),
        helper.make_node("Add", [own("base"), own("step")], [own("point")]),
        *([helper.make_node("Gather", [PLACE, own("row")], [own("pixel")])] if len(inputs) > 1 else []),
        *copies,
        helper.make_node("Mul", [own("weight"), own("line")], [own("weighed")]),
        helper.make_node("Mul", [own("weighed"), renamed[GRADIENT]], [own("shares")]),
        helper.make_node("ReduceSum", [own("shares"), outer("first")], [own("share")], keepdims=1),
        helper.make_node("Identity", [own("go")], [own("on")]),
    ]
    values = [
        helper.make_tensor_value_info(own("turn"), TensorProto.INT64, []),
        helper.make_tensor_value_info(own("go"), TensorProto.BOOL, []),
    ]
    results = [
        helper.make_tensor_value_info(own("on"), TensorProto.BOOL, []),
        helper.make_tensor_value_info(own("share"), TensorProto.FLOAT, None),
    ]
    return helper.make_graph(nodes, f"{name}_turn", values, results)


def _between(nodes: Iterable[Any], inputs: Iterable[str], output: str) -> list[Any]:
    """Return the nodes on the ways from ``inputs`` to ``output``, in their order; what else is read is constant."""
    known, after = set(inputs), []
    for node in ancestors(nodes, [output]):
        if known.intersection(reads(node)):
            known.update(node.output)
            after.append(node)
    return after


def _rename(node: Any, names: dict[str, str]) -> None:
    for values in (node.input, node.output):
        for place, value in enumerate(values):
            values[place] = names.get(value, value)
    node.name = f"{names[GRADIENT]}/{node.name}" if GRADIENT in names else node.name
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename(inner, names)
