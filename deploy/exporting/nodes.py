"""The nodes of an ONNX graph: what an output comes from, and leaving out the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from onnx import AttributeProto

__all__ = ["ancestors", "drop_output", "reads", "replace"]


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


def replace(field: Any, kept: Sequence[Any]) -> None:
    """Let a repeated field hold copies of ``kept``, which may be in it."""
    copies = []
    for one in kept:
        copy = type(one)()
        copy.CopyFrom(one)
        copies.append(copy)
    del field[:]
    field.extend(copies)
