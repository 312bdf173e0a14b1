"""Cutting from a model file the part that computes some of its outputs.

onnxruntime always computes every output (its option ``only_execute_path_to_fetches`` works in training builds
alone), so what is not asked for must not be in the graph. This reads the protobuf wire format itself, since a
serving host has no ``onnx`` package.

References
----------
.. [1] Protocol Buffers, "Encoding": the wire format.
.. [2] ONNX, ``onnx.proto3``: the field numbers below.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

__all__ = ["extract"]

_MODEL_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_VALUE_NAME, _TENSOR_NAME = 1, 8

# Field number, the whole field as it stands, and its content (empty for plain numbers).
_Field = tuple[int, memoryview, memoryview]


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
    for number, whole, content in _fields(memoryview(model)):
        if number == _MODEL_GRAPH:
            graph = b"".join(_graph(content, outputs))
            parts += [_varint(_MODEL_GRAPH << 3 | 2), _varint(len(graph)), graph]
        else:
            parts.append(whole)
    return b"".join(parts)


def _graph(graph: memoryview, outputs: Collection[str]) -> list[memoryview]:
    fields = list(_fields(graph))
    needed, kept = set(outputs), set()
    # Nodes stand in topological order, so one pass from the end finds all that is needed.
    for index in range(len(fields) - 1, -1, -1):
        number, _, content = fields[index]
        if number == _NODE and needed.intersection(_texts(content, _NODE_OUTPUT)):
            kept.add(index)
            needed.update(_reads(content))
    # An input with a value of its own goes together with it, else it would have to be given.
    optional = set()
    for number, _, content in fields:
        if number == _INITIALIZER:
            optional.update(_texts(content, _TENSOR_NAME))
    parts = []
    for index, (number, whole, content) in enumerate(fields):
        if number == _NODE:
            keep = index in kept
        elif number == _OUTPUT:
            keep = not set(outputs).isdisjoint(_texts(content, _VALUE_NAME))
        elif number in (_INITIALIZER, _VALUE_INFO):
            name = _TENSOR_NAME if number == _INITIALIZER else _VALUE_NAME
            keep = not needed.isdisjoint(_texts(content, name))
        elif number == _INPUT:
            keep = not (optional - needed).intersection(_texts(content, _VALUE_NAME))
        else:
            keep = True
        if keep:
            parts.append(whole)
    return parts


def _reads(node: memoryview) -> set[str]:
    names = set(_texts(node, _NODE_INPUT))
    for number, _, attribute in _fields(node):
        if number == _NODE_ATTRIBUTE:
            for kind, _, graph in _fields(attribute):
                if kind in _ATTRIBUTE_GRAPHS:
                    names |= _captured(graph)
    return names


def _captured(graph: memoryview) -> set[str]:
    """Return every name that a branch or loop body may take from the graph around it."""
    names: set[str] = set()
    for number, _, content in _fields(graph):
        if number == _NODE:
            names |= _reads(content)
        elif number == _OUTPUT:
            names.update(_texts(content, _VALUE_NAME))
    return names


def _texts(message: memoryview, wanted: int) -> list[str]:
    return [bytes(content).decode() for number, _, content in _fields(message) if number == wanted]


def _fields(message: memoryview) -> Iterator[_Field]:
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        begin = position
        match key & 7:
            case 0:
                _, position = _read_varint(message, position)
                begin = position
            case 1:
                begin = position = position + 8
            case 2:
                length, begin = _read_varint(message, position)
                position = begin + length
            case 5:
                begin = position = position + 4
            case wire:
                raise ValueError(f"wire type {wire} at byte {start}")
        yield key >> 3, message[start:position], message[begin:position]


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
