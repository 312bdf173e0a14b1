"""numba's compiler, which keeps what it compiled where there is a place for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["compiled"]


def compiled(function: Callable[..., Any] | None = None, *, fastmath: bool = False) -> Any:
    """Compile a function at its first call, with a cache on disk.

    Without it where neither the package's folder nor the user's cache can be written, as in a container with
    another user: numba alone refuses to be imported there.

    Examples
    --------
    >>> @compiled
    ... def double(x):
    ...     return 2 * x
    >>> double(3)
    6
    """
    if function is None:
        return lambda given: compiled(given, fastmath=fastmath)
    try:
        return njit(cache=True, fastmath=fastmath)(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return njit(fastmath=fastmath)(function)
