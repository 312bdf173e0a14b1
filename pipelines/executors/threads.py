"""One numerical thread per process: chains are what runs in parallel."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits

__all__ = ["VARIABLES", "limit_environment", "one_thread"]

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def one_thread() -> AbstractContextManager[object]:
    """Keep what is loaded already to one thread, whatever the environment said when it was loaded."""
    if "numba" in sys.modules:
        sys.modules["numba"].set_num_threads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def limit_environment() -> None:
    """Keep what this process loads later to one thread."""
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
