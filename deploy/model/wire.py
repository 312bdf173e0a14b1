"""The protobuf wire format of ONNX files, since a serving host has no ``onnx`` package.

References
----------
.. [1] Protocol Buffers, "Encoding": the wire format.
.. [2] ONNX, ``onnx.proto3``: the field numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Field", "field", "fields", "numbers", "texts"]

GRAPH, FUNCTION = 7, 25
NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13
NODE_INPUT, NODE_OUTPUT, NODE_KIND, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_GRAPHS = (6, 11)
VALUE_NAME = 1
TENSOR_SIZES, TENSOR_NAME, TENSOR_BYTES = 1, 8, 9
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10

_VARINT = 10  # bytes of the longest number

# Field number, the whole field as it stands, and its content: of a plain number its own bytes.
Field = tuple[int, memoryview, memoryview]


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message, in their order.

    Raises
    ------
    ValueError
        For what is no message.
    """
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        if not key >> 3:
            raise ValueError(f"field 0 at byte {start}")
        begin = position
        match key & 7:
            case 0:
                _, position = _read_varint(message, position)
            case 1:
                position += 8
            case 2:
                length, begin = _read_varint(message, position)
                position = begin + length
            case 5:
                position += 4
            case kind:
                raise ValueError(f"wire type {kind} at byte {start}")
        if position > len(message):
            raise ValueError(f"field {key >> 3} at byte {start} goes beyond the end")
        yield key >> 3, message[start:position], message[begin:position]


def texts(message: memoryview, wanted: int) -> list[str]:
    """Return the contents of the fields with the number ``wanted``, which are texts."""
    return [bytes(content).decode() for number, _, content in fields(message) if number == wanted]


def numbers(message: memoryview, wanted: int) -> list[int]:
    """Return the values of the fields with the number ``wanted``, whole numbers, packed or one by one."""
    found = []
    for number, _, content in fields(message):
        position = 0
        while number == wanted and position < len(content):
            value, position = _read_varint(content, position)
            found.append(value)
    return found


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT):
        if position + place >= len(message):
            break
        byte = message[position + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError(f"no number at byte {position}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
