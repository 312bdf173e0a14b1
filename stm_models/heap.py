"""The memory of large arrays, kept from one to the next.

glibc gives an array above 32 MiB back to the kernel when it is freed, and gets a new one with every page of it
cleared: a network on images of 256 x 256 pixels makes dozens of them in each step, and spends up to half of its CPU
time so.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["kept"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_LARGE = 2**25  # what glibc would come to by itself
_users = 0
_changing = threading.Lock()


@contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory for the next arrays inside, and give it back at the end; nothing happens without glibc.

    It is kept for the main thread, where torch makes its tensors; may be nested, and entered in several threads.
    """
    global _users
    libc = _glibc()
    if libc is None:
        yield
        return
    with _changing:
        _users += 1
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _changing:
            _users -= 1
            if not _users:
                libc.mallopt(_MMAP_MAX, 65536)
                libc.mallopt(_MMAP_THRESHOLD, _LARGE)
                libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGE)
                libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (OSError, TypeError, AttributeError):  # musl, macOS, Windows
        return None
    libc.malloc_trim.argtypes = (ctypes.c_size_t,)
    return libc
