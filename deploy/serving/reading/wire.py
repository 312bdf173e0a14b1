"""A question as bytes, between the process that reads files and the server: JSON and plain numbers, no pickle."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from deploy.model.questions import Question, Reading
from stm_models.errors import InputError

__all__ = ["decode_question", "encode_error", "encode_question", "reading_from", "reading_to"]

_LENGTH = 8


def reading_to(reading: Reading) -> dict[str, Any]:
    """Return how to read a file as plain JSON-able values."""
    return dict(vars(reading))


def reading_from(values: dict[str, Any]) -> Reading:
    """Invert `reading_to`."""
    size = values.pop("size_nm")
    return Reading(**values, size_nm=None if size is None else (float(size[0]), float(size[1])))


def encode_error(message: str) -> bytes:
    """Write the message of an `InputError`."""
    return _framed({"error": message}, b"")


def encode_question(question: Question) -> bytes:
    """Write a question of one image (1, C, H, W)."""
    image = np.ascontiguousarray(question.images, "<f4")
    known = b"" if question.known is None else np.ascontiguousarray(question.known, np.uint8).tobytes()
    head = {
        "shape": image.shape, "names": question.names, "masked": question.known is not None,
        "notes": question.notes, "about": question.about,
    }  # fmt: skip
    return _framed(head, image.tobytes() + known)


def decode_question(content: bytes) -> Question:
    """Invert `encode_question`.

    Raises
    ------
    InputError
        With the message that `encode_error` wrote.
    ValueError
        For anything else.
    """
    length = int.from_bytes(content[:_LENGTH], "little")
    head = json.loads(content[_LENGTH : _LENGTH + length])
    if "error" in head:
        raise InputError(str(head["error"]))
    shape = tuple(int(size) for size in head["shape"])
    count = int(np.prod(shape))
    image = np.frombuffer(content, "<f4", count, _LENGTH + length).reshape(shape)
    known = None
    if head["masked"]:
        flat = np.frombuffer(content, np.uint8, shape[2] * shape[3], _LENGTH + length + 4 * count)
        known = flat.reshape(shape[2:]) != 0
    names = [str(name) for name in head["names"]]
    return Question(image, names, known, tuple(map(str, head["notes"])), about=dict(head["about"]))


def _framed(head: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(head, allow_nan=False).encode()
    return len(text).to_bytes(_LENGTH, "little") + text + body
