"""Numbers that came as JSON lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = ["json_array"]


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
