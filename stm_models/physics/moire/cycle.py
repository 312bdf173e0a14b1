"""The self-consistent cycle x = F(x): mixing, and another try with other mixing where it stalls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.mixing import Anderson

__all__ = ["Outcome", "fixed_point"]

Floats = NDArray[np.float64]
T = TypeVar("T")
_PATIENCE = 25
_PLAIN_SHARE = 0.7


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Where a cycle ended.

    Attributes
    ----------
    guess, output : (n,) float64
        Last x and F(x).
    extra
        What F gave beside its output at the last x.
    iterations : int
        Evaluations of F, all attempts together.
    attempts : int
    residual : float
        max |F(x) - x| at the last x.
    converged : bool
    growth : float
        Leading eigenvalue of dF/dx as the cycle saw it, see `Anderson.response`; above 1 the end is a saddle.
    direction : (n,) float64
        Its eigenvector.
    """

    guess: Floats
    output: Floats
    extra: T
    iterations: int
    attempts: int
    residual: float
    converged: bool
    growth: float
    direction: Floats


def fixed_point(
    function: Callable[[Floats], tuple[Floats, T]],
    guess: Floats,
    metric: Floats,
    *,
    mixing: Sequence[tuple[float, int]],
    tolerance: float,
    max_iterations: int,
    plain: int = 0,
) -> Outcome[T]:
    """Iterate until max |F(x) - x| < tolerance.

    An attempt ends without success after ``max_iterations``, or when its residual has not reached a new low
    for 25 iterations. The next one starts from the best x so far with the next mixing.

    Parameters
    ----------
    function : callable
        (n,) -> F(x) (n,) and anything else.
    guess : (n,) float64
    metric : (n,) float64
        Weight of each component in the mixing's inner product.
    mixing : sequence of (beta, history)
        One Anderson mixing per attempt.
    tolerance : float
    max_iterations : int
        Of each attempt.
    plain : int
        Iterations before them that mix seven tenths of F(x) in: they follow an unstable direction, which
        Anderson mixing would step back along.

    Returns
    -------
    Outcome
    """
    for _ in range(plain):
        guess = guess + _PLAIN_SHARE * (function(guess)[0] - guess)
    best, lowest, iterations = guess, np.inf, plain
    for attempts, (beta, history) in enumerate(mixing, 1):  # noqa: B007
        mixer = Anderson(metric, beta, history)
        guess, since = best, 0
        for iteration in range(1, max_iterations + 1):
            output, extra = function(guess)
            iterations += 1
            residual = float(np.abs(output - guess).max())
            if residual < lowest:
                best, lowest, since = guess, residual, 0
            else:
                since += 1
            if residual < tolerance or iteration == max_iterations or since > _PATIENCE:
                break
            guess = mixer.step(guess, output - guess)
        if residual < tolerance:
            break
    return Outcome(guess, output, extra, iterations, attempts, residual, residual < tolerance, *mixer.response())
