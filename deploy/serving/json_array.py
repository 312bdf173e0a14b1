"""Numbers as JSON lists, read and written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.strict_json import dump_json
from stm_models.errors import InputError

__all__ = ["NUMBER_BYTES", "array_json", "json_array"]

NUMBER_BYTES = 20
"""That a float32 number takes as JSON, about."""
_PART = 16384  # numbers, written in a few milliseconds


def json_array(values: list[Any], what: str, expected: str) -> NDArray[Any]:
    """Return nested lists of numbers as an array.

    Every number is looked at before any array is made: numpy would make each element as long as the longest text
    among them.

    Parameters
    ----------
    what, expected : str
        What the values are and should be, for messages.

    Raises
    ------
    InputError
        When lists are ragged, or there is something else than numbers in them.
    """
    waiting = [values]
    while waiting:
        one = waiting.pop()
        kinds = set(map(type, one))
        if kinds == {list}:
            waiting.extend(one)
        elif list in kinds:
            raise InputError(f"{what} is ragged, expected {expected}")
        elif other := kinds - {int, float}:
            raise InputError(f"{what} holds {', '.join(sorted(kind.__name__ for kind in other))}, expected {expected}")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what} is ragged, expected {expected}") from error


def array_json(values: NDArray[Any]) -> Iterator[bytes]:
    """Yield an array as JSON, nested lists, in parts: while one of them is written no other thread of Python runs."""
    if values.size <= _PART:
        yield dump_json(values.tolist())
        return
    step = _PART // values[0].size
    yield b"["
    for first in range(0, len(values), max(step, 1)):
        if first:
            yield b","
        if step > 1:
            yield dump_json(values[first : first + step].tolist())[1:-1]
        else:
            yield from array_json(values[first])
    yield b"]"
