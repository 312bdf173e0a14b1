"""Anderson mixing of a fixed-point iteration x = F(x)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Anderson"]

Floats = NDArray[np.float64]
_DISTINCT = 1e-2  # steps nearer than this to the span of the others say nothing new


class Anderson:
    """Next guess from the last few guesses and residuals.

    Parameters
    ----------
    beta : float
        Share of the residual that is mixed in.
    history : int
        Number of earlier differences kept.
    metric : (n,) float64
        Weight of each component in the inner product (e.g. its multiplicity).

    Notes
    -----
    D. G. Anderson, J. ACM 12, 547 (1965); type II, regularised by 1e-10 of the trace.
    """

    def __init__(self, metric: Floats, beta: float = 0.6, history: int = 6) -> None:
        self.beta, self.history = beta, history
        self._scale = np.sqrt(metric)
        self._guesses: list[Floats] = []
        self._residuals: list[Floats] = []

    def step(self, guess: Floats, residual: Floats) -> Floats:
        """Return the next guess from ``guess`` (n,) and ``residual`` F(guess) - guess (n,)."""
        self._guesses.append(guess)
        self._residuals.append(residual)
        if len(self._guesses) > self.history + 1:
            del self._guesses[0], self._residuals[0]
        moved = guess + self.beta * residual
        if len(self._guesses) == 1:
            return moved
        changes = np.diff(np.array(self._residuals), axis=0)
        steps = np.diff(np.array(self._guesses), axis=0)
        weighted = changes * self._scale
        gram = weighted @ weighted.T
        gram += (1e-10 * np.trace(gram) + np.finfo(float).tiny) * np.eye(len(gram))
        share = np.linalg.solve(gram, weighted @ (residual * self._scale))
        return moved - share @ (steps + self.beta * changes)

    def response(self) -> tuple[float, Floats]:
        """Estimate how F answers a small change of x, from the steps in the history.

        Returns
        -------
        growth : float
            Largest real part of the eigenvalues of dF/dx in the space of those steps: above 1, plain iteration
            leaves the fixed point and it is a saddle; 0 where fewer than two steps are known.
        direction : (n,) float64
            The eigenvector, its largest component 1.
        """
        if len(self._guesses) < 3:
            return 0.0, np.zeros_like(self._scale)
        steps = np.diff(np.array(self._guesses), axis=0) * self._scale
        images = steps + np.diff(np.array(self._residuals), axis=0) * self._scale
        length = np.linalg.norm(steps, axis=1, keepdims=True)
        right, size, left = np.linalg.svd((steps / length).T, full_matrices=False)
        kept = size > _DISTINCT * size[0]
        right, size, left = right[:, kept], size[kept], left[kept]
        values, vectors = np.linalg.eig(right.T @ (images / length).T @ left.T / size)
        leading = int(np.argmax(values.real))
        direction = right @ vectors[:, leading].real / self._scale
        return float(values[leading].real), direction / direction[np.argmax(np.abs(direction))]
