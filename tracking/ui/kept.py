"""What was made lately, kept up to a size in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ["Kept"]


class Kept:
    """Bytes by key, those that were asked for last; may be used from several threads.

    Parameters
    ----------
    most : int
        Bytes of all values together.
    """

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the value of ``key``, made if it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._size += len(value) - len(self._values.pop(key, b""))  # another thread may have made it too
            self._values[key] = value
            while self._size > self._most:
                self._size -= len(self._values.popitem(last=False)[1])
        return value
