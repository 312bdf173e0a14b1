"""A model file as CUDA computes it best: the same numbers, by operators that it has and in larger pieces.

What an exporter writes suits a processor: attribution along lines in pieces that stay in its cache, and gradients of
pooling by MaxUnpool, which onnxruntime does not have for CUDA: it would carry every such array to the processor and
back. The file holds the same in other operators, as a function (`deploy.exporting.unpooling`), and says in one number
how many turns a line takes; here nodes are sent to the former, and the latter is chosen anew.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    """Return a serialised ONNX model that computes the same, changed for CUDA; as it is where nothing is to change."""
    own = _functions(model)
    parts: list[bytes | memoryview] = []
    for number, whole, content in wire.fields(memoryview(model)):
        parts.append(wire.field(number, _graph(content, own, _turns(content))) if number == wire.GRAPH else whole)
    return b"".join(parts)


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


def _functions(model: bytes) -> set[str]:
    """Return the names of the file's own functions."""
    return {
        name
        for number, _, content in wire.fields(memoryview(model))
        if number == wire.FUNCTION and FUNCTIONS in wire.texts(content, wire.FUNCTION_DOMAIN)
        for name in wire.texts(content, wire.FUNCTION_NAME)
    }


def _turns(graph: memoryview) -> dict[str, int]:
    """Return the new numbers of turns by their names in the graph."""
    sizes, shapes = {}, {}
    for number, _, content in wire.fields(graph):
        if number == wire.INITIALIZER:
            for name in wire.texts(content, wire.TENSOR_NAME):
                sizes[name] = wire.numbers(content, wire.TENSOR_SIZES)
                if name.endswith(_SHAPE):
                    shapes[name] = _product(content)
    found = {}
    for name in sizes:
        path = name.removesuffix(TURNS)
        if path != name and path + _SHAPE in shapes and len(sizes.get(path + _INDEX, ())) == 1:
            found[name] = turns_of(sizes[path + _INDEX][0], shapes[path + _SHAPE], _NUMBERS)
    return found


def _product(tensor: memoryview) -> int:
    """Return the product of a tensor of int64."""
    product = 1
    for number, _, content in wire.fields(tensor):
        if number == wire.TENSOR_BYTES:
            for start in range(0, len(content), 8):
                product *= int.from_bytes(content[start : start + 8], "little", signed=True)
    return product


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
