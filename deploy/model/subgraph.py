"""Cutting from a model file the part that computes some of its outputs.

onnxruntime always computes every output (its option ``only_execute_path_to_fetches`` works in training builds
alone), so what is not asked for must not be in the graph.
"""

from __future__ import annotations

from collections.abc import Collection

from deploy.model import wire

__all__ = ["extract"]


def extract(model: bytes, outputs: Collection[str]) -> bytes:
    """Return the model with only ``outputs``, and only the nodes, weights and optional inputs that they need.

    Parameters
    ----------
    model : bytes
        A serialised ONNX model that onnxruntime accepts.
    outputs : collection of str
        Names of some of its outputs.
    """
    parts: list[bytes | memoryview] = []
    for number, whole, content in wire.fields(memoryview(model)):
        if number == wire.GRAPH:
            parts.append(wire.field(number, b"".join(_graph(content, outputs))))
        else:
            parts.append(whole)
    return b"".join(parts)


def _graph(graph: memoryview, outputs: Collection[str]) -> list[memoryview]:
    fields = list(wire.fields(graph))
    needed, kept = set(outputs), set()
    # Nodes stand in topological order, so one pass from the end finds all that is needed.
    for index in range(len(fields) - 1, -1, -1):
        number, _, content = fields[index]
        if number == wire.NODE and needed.intersection(wire.texts(content, wire.NODE_OUTPUT)):
            kept.add(index)
            needed.update(_reads(content))
    # An input with a value of its own goes together with it, else it would have to be given.
    optional = set()
    for number, _, content in fields:
        if number == wire.INITIALIZER:
            optional.update(wire.texts(content, wire.TENSOR_NAME))
    parts = []
    for index, (number, whole, content) in enumerate(fields):
        if number == wire.NODE:
            keep = index in kept
        elif number == wire.OUTPUT:
            keep = not set(outputs).isdisjoint(wire.texts(content, wire.VALUE_NAME))
        elif number in (wire.INITIALIZER, wire.VALUE_INFO):
            name = wire.TENSOR_NAME if number == wire.INITIALIZER else wire.VALUE_NAME
            keep = not needed.isdisjoint(wire.texts(content, name))
        elif number == wire.INPUT:
            keep = not (optional - needed).intersection(wire.texts(content, wire.VALUE_NAME))
        else:
            keep = True
        if keep:
            parts.append(whole)
    return parts


def _reads(node: memoryview) -> set[str]:
    names = set(wire.texts(node, wire.NODE_INPUT))
    for number, _, attribute in wire.fields(node):
        if number == wire.NODE_ATTRIBUTE:
            for kind, _, graph in wire.fields(attribute):
                if kind in wire.ATTRIBUTE_GRAPHS:
                    names |= _captured(graph)
    return names


def _captured(graph: memoryview) -> set[str]:
    """Return every name that a branch or loop body may take from the graph around it."""
    names: set[str] = set()
    for number, _, content in wire.fields(graph):
        if number == wire.NODE:
            names |= _reads(content)
        elif number == wire.OUTPUT:
            names.update(wire.texts(content, wire.VALUE_NAME))
    return names
