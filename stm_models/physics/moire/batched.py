"""Eigenproblems of all k points in one batch through torch.

The one module under physics that may load torch, and only inside its functions: torch brings the batched
eigensolver of a GPU, and whoever simulates on a CPU never imports it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["available", "diagonalise"]

Array = NDArray[Any]


def available() -> bool:
    """Say whether torch is installed and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def diagonalise(matrices: Iterable[Array], device: str) -> tuple[NDArray[np.float64], list[Array]]:
    """Bands and eigenvectors of Hermitian matrices of one size.

    Parameters
    ----------
    matrices : iterable of (N, N) float64 or complex128
        Lower triangle. Real ones among complex ones are solved as complex.
    device : str
        Of torch: ``cuda``, or ``cpu``.

    Returns
    -------
    energies : (blocks, N) float64
    vectors : list of (N, N), in columns
    """
    import torch

    stack = torch.from_numpy(np.stack(list(matrices))).to(device)
    energies, vectors = torch.linalg.eigh(stack, UPLO="L")
    return energies.cpu().numpy(), list(vectors.cpu().numpy())
