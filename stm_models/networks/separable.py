"""Weighted sums over an image whose weights are few functions of y times few of x, taken along one axis at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Separable"]

Floats = NDArray[np.float64]
_NOTHING = 1e-12  # of the largest squared singular value: what rounding leaves


class Separable(nn.Module):
    """The sums of images times each of the weights.

    Weights of peaks on a lattice are products of few functions of y with few of x: a core between a basis of lines and
    one of columns (a Tucker decomposition, exact to rounding) has some hundredth of their numbers.

    Parameters
    ----------
    weights : (K, h, w) float64
    """

    lines: Tensor
    columns: Tensor
    core: Tensor

    def __init__(self, weights: Floats) -> None:
        super().__init__()
        count, height, width = weights.shape
        columns = _basis(weights.reshape(-1, width))
        lines = _basis(weights.transpose(0, 2, 1).reshape(-1, height))
        core = ((weights @ columns.T).transpose(0, 2, 1) @ lines.T).reshape(count, -1)
        for name, values in {"lines": lines, "columns": columns, "core": core}.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums (B, C, K) of images ``x`` (B, C, h, w)."""
        return ((x @ self.columns.T).transpose(2, 3) @ self.lines.T).flatten(2) @ self.core.T


def _basis(vectors: Floats) -> Floats:
    """Return orthonormal vectors (rank, n) that span all ``vectors`` (N, n)."""
    squares, basis = np.linalg.eigh(vectors.T @ vectors)
    found: Floats = basis.T[squares > _NOTHING * squares[-1]]
    return found
