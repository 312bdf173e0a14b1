"""A model file as CUDA computes it best: the same numbers, by operators that it has and in larger pieces.

What an exporter writes suits a processor: attribution along lines in pieces that stay in its cache, and gradients of
pooling by MaxUnpool, which onnxruntime does not have for CUDA: it would carry every such array to the processor and
back. The file holds the same in other operators, as a function (`deploy.exporting.unpooling`), and says in one number
how many turns a line takes; here nodes are sent to the former, and the latter is chosen anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from deploy.model import wire

__all__ = ["FUNCTIONS", "TURNS", "UNPOOL", "adapted", "turns_of"]

FUNCTIONS = "stm"
"""Domain of the functions that a file holds."""
UNPOOL = "MaxUnpool"
"""Operator for which a file holds a function of the same name and inputs."""
TURNS = "/turns"
"""End of the name of the number of turns; the points' index and the shape of an image have the same name but for it."""
_INDEX, _SHAPE = "/index", "/shape"
_NUMBERS = 2**19  # in one turn: some hundreds of MiB for a network of 32 channels


def adapted(model: bytes) -> bytes:
    """Return a serialised ONNX model that computes the same, changed for CUDA; itself where nothing is to change.

    Raises
    ------
    ValueError
        For what is no ONNX model.
    """
    fields = list(wire.fields(memoryview(model)))
    functions = _functions(fields)
    turns = {name: count for number, _, content in fields if number == wire.GRAPH for name, count in _turns(content)}
    if not functions and not turns:
        return model
    return b"".join(
        wire.field(number, _graph(content, functions, turns)) if number == wire.GRAPH else whole
        for number, whole, content in fields
    )


def turns_of(points: int, numbers: int, most: int) -> int:
    """Return in how few turns points are taken, equally many at a time: one, or as many as are ``most`` numbers.

    Parameters
    ----------
    points : int
        Positive.
    numbers : int
        Of one point, positive.
    most : int
    """
    at_once = max(1, most // numbers)
    return points // max(size for size in range(1, min(points, at_once) + 1) if points % size == 0)


def _functions(model: Iterable[wire.Field]) -> set[str]:
    """Return the names of the file's own functions."""
    return {
        name
        for number, _, content in model
        if number == wire.FUNCTION and FUNCTIONS in wire.texts(content, wire.FUNCTION_DOMAIN)
        for name in wire.texts(content, wire.FUNCTION_NAME)
    }


def _turns(graph: memoryview) -> Iterator[tuple[str, int]]:
    """Yield the numbers of turns that are to be others: their names in the graph, and which."""
    tensors = {
        name: content
        for number, _, content in wire.fields(graph)
        if number == wire.INITIALIZER
        for name in wire.texts(content, wire.TENSOR_NAME)
    }
    for name, tensor in tensors.items():
        path = name.removesuffix(TURNS)
        if path == name or path + _INDEX not in tensors or path + _SHAPE not in tensors:
            continue
        sizes = wire.numbers(tensors[path + _INDEX], wire.TENSOR_SIZES)
        shape, own = _integers(tensors[path + _SHAPE]), _integers(tensor)
        if len(sizes) == 1 and len(own) == 1 and shape and min(shape) > 0:
            turns = turns_of(sizes[0], math.prod(shape), _NUMBERS)
            if turns != own[0]:
                yield name, turns


def _integers(tensor: memoryview) -> list[int]:
    """Return the int64 that a tensor holds as bytes; none where it holds them otherwise."""
    return [
        int.from_bytes(content[start : start + 8], "little", signed=True)
        for number, _, content in wire.fields(tensor)
        if number == wire.TENSOR_BYTES
        for start in range(0, len(content), 8)
    ]


def _graph(graph: memoryview, functions: set[str], turns: Mapping[str, int]) -> bytes:
    parts: list[bytes | memoryview] = []
    for number, whole, content in wire.fields(graph):
        if number == wire.NODE:
            parts.append(wire.field(number, _node(content, functions)))
        elif number == wire.INITIALIZER and (name := "".join(wire.texts(content, wire.TENSOR_NAME))) in turns:
            parts.append(wire.field(number, _with_value(content, turns[name])))
        else:
            parts.append(whole)
    return b"".join(parts)


def _node(node: memoryview, functions: set[str]) -> bytes:
    """Return a node, and those inside it, sent to the functions of the file."""
    parts: list[bytes | memoryview] = []
    for number, whole, content in wire.fields(node):
        parts.append(wire.field(number, _attribute(content, functions)) if number == wire.NODE_ATTRIBUTE else whole)
    if not functions.isdisjoint(wire.texts(node, wire.NODE_KIND)) and not any(wire.texts(node, wire.NODE_DOMAIN)):
        parts.append(wire.field(wire.NODE_DOMAIN, FUNCTIONS.encode()))
    return b"".join(parts)


def _attribute(attribute: memoryview, functions: set[str]) -> bytes:
    parts: list[bytes | memoryview] = []
    for number, whole, content in wire.fields(attribute):
        inner = number in wire.ATTRIBUTE_GRAPHS
        parts.append(wire.field(number, _graph(content, functions, {})) if inner else whole)
    return b"".join(parts)


def _with_value(tensor: memoryview, value: int) -> bytes:
    """Return a tensor of one int64 with another value."""
    raw = value.to_bytes(8, "little", signed=True)
    kept = [whole for number, whole, _ in wire.fields(tensor) if number != wire.TENSOR_BYTES]
    return b"".join([*kept, wire.field(wire.TENSOR_BYTES, raw)])
