"""The nodes of an ONNX graph: what an output comes from, and leaving out the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from onnx import AttributeProto, numpy_helper

__all__ = ["ancestors", "drop_output", "reads", "replace", "store_once"]


def ancestors(nodes: Iterable[Any], outputs: Iterable[str]) -> list[Any]:
    """Return the nodes that ``outputs`` come from, in their order."""
    needed, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    return kept[::-1]


def drop_output(proto: Any, name: str) -> None:
    """Make ``name`` an output no more; what computed it alone goes too."""
    outputs = [value for value in proto.graph.output if value.name != name]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    kept = ancestors(proto.graph.node, [value.name for value in outputs])
    replace(proto.graph.node, kept)
    read = {text for node in kept for text in reads(node)}
    inputs = [value for value in proto.graph.input if value.name in read]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    replace(proto.graph.initializer, [tensor for tensor in proto.graph.initializer if tensor.name in read])


def reads(node: Any) -> set[str]:
    """Return every name that a node takes, those of the graphs inside it included."""
    names = set(node.input) - {""}
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            names |= {name for inner in attribute.g.node for name in reads(inner)}
            names |= {value.name for value in attribute.g.output}
    return names


def store_once(proto: Any) -> None:
    """Let nodes that read equal tensors read one; the others are left out."""
    fixed = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    fixed |= {name for node in proto.graph.node for name in reads(node) - set(node.input)}  # read by graphs inside
    first: dict[tuple[Any, ...], str] = {}
    other = {}
    for tensor in proto.graph.initializer:
        if tensor.name not in fixed:
            content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).digest()
            key = (tensor.data_type, *tensor.dims, content)
            other[tensor.name] = first.setdefault(key, tensor.name)
    for node in proto.graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]
    kept = [tensor for tensor in proto.graph.initializer if other.get(tensor.name, tensor.name) == tensor.name]
    replace(proto.graph.initializer, kept)


def replace(field: Any, kept: Sequence[Any]) -> None:
    """Let a repeated field hold copies of ``kept``, which may be in it."""
    copies = []
    for one in kept:
        copy = type(one)()
        copy.CopyFrom(one)
        copies.append(copy)
    del field[:]
    field.extend(copies)
