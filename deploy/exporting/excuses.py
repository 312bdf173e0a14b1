"""What a file's answers may differ by from the model's: float32's own error, and jumps at kinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Array", "Evaluate", "Excuses", "above", "relative"]

Array = NDArray[Any]
Evaluate = Callable[..., Mapping[str, Array]]

TOLERANCE = 1e-4
"""Largest difference allowed, over the largest value of the reference."""
_ALLOWED = 4.0  # times what the reference itself is off, or jumps
_PAIRS, _STEP, _ULPS = 4, 3e-6, 4e-7
_TINY = float(np.finfo(np.float32).tiny)


@dataclass
class Excuses:
    """Takes errors of one batch's rows for nothing where the reference is no better; see the notes of `parity.check`.

    Errors are those of rows in their batch, and by row of some that were asked for alone.

    Attributes
    ----------
    reference : callable
        Arguments to named arrays.
    truth : callable or None
        The same in float64; without one no rounding is excused.
    scale : (C, H, W) float32
    rng : numpy.random.Generator
    arguments : tuple of arrays with B rows
        The images, and what else is asked for.
    wanted : mapping of str to array
        What the reference answers.
    kinks, rounding : int
        How many errors were excused so.
    """

    reference: Evaluate
    truth: Evaluate | None
    scale: Array
    rng: np.random.Generator
    arguments: tuple[Array, ...]
    wanted: Mapping[str, Array]
    kinks: int = 0
    rounding: int = 0
    _exact: Mapping[str, Array] = field(default_factory=dict, init=False, repr=False)

    def excuse_rounding(
        self, name: str, got: Array, size: Array, errors: Array, apart: Mapping[int, float]
    ) -> tuple[Array, dict[int, float]]:
        """Return the errors without those that float32 alone explains."""
        apart = dict(apart)
        if self.truth is None or not above([*errors, *apart.values()]).any():
            return errors, apart
        self._exact = self._exact or self.truth(*self.arguments)
        exact = self._exact[name]
        own = relative(self.wanted[name], exact, size)
        allowed = np.maximum(_ALLOWED * np.maximum(own, np.median(own)), TOLERANCE)
        allowed = np.where(np.isfinite(allowed), allowed, TOLERANCE)
        off = relative(got, exact, size)
        for row in np.flatnonzero(above(errors) & (off > allowed)).tolist():
            near = self._near(row, 0.0)
            others = relative(self.reference(*near)[name], self.truth(*near)[name], size[row])
            if np.isfinite(others).all():
                allowed[row] = max(allowed[row], _ALLOWED * float(others.max()))
        excused = above(errors) & (off <= allowed)
        self.rounding += int(excused.sum())
        for row, error in apart.items():
            if error <= 2 * allowed[row]:
                apart[row] = min(error, TOLERANCE)
        return np.where(excused, 0.0, errors), apart

    def excuse_kinks(
        self, name: str, size: Array, errors: Array, apart: Mapping[int, float]
    ) -> tuple[Array, dict[int, float]]:
        """Return the errors without those where the reference itself jumps as far close to the image."""

        def left(row: int, error: float) -> float:
            if not above([error])[0] or error > self._jump(name, row, size[row]):
                return error
            self.kinks += 1
            return 0.0

        together = np.array([left(row, error) for row, error in enumerate(errors)])
        return together, {row: left(row, error) for row, error in apart.items()}

    def _jump(self, name: str, row: int, size: float) -> float:
        """Return the error allowed for a map that jumps close to a row's image."""
        near = self._near(row, _STEP * self.scale)
        own = self.wanted[name][row]
        jumps = relative(self.reference(*near)[name], np.broadcast_to(own, (len(near[0]), *own.shape)), size)
        return _ALLOWED * float(jumps.max())

    def _near(self, row: int, step: Array | float) -> tuple[Array, ...]:
        """Return a batch of images within ``step`` and rounding of a row's, and its other arguments."""
        image, *others = (values[row] for values in self.arguments)
        steps = self.rng.standard_normal((_PAIRS, *image.shape)) * (step + _ULPS * np.abs(image))
        near = np.concatenate((image + steps, image - steps)).astype(np.float32)
        return (near, *(np.repeat(values[None], len(near), axis=0) for values in others))


def relative(got: Array, want: Array, size: Array | float) -> Array:
    """Return per row the largest difference over ``size``; infinity where something is not finite."""
    axes = tuple(range(1, want.ndim))
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64)).max(axis=axes)
    found: Array = np.where(np.isfinite(difference), difference / np.maximum(size, _TINY), np.inf)
    return found


def above(errors: Array | Sequence[float]) -> Array:
    """Return which errors are above `TOLERANCE`; NaN is."""
    found: Array = ~(np.asarray(errors) <= TOLERANCE)
    return found
