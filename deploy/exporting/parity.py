"""Does the ONNX graph compute what the torch model computes?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.exporting.errors import ExportError

__all__ = ["BATCHES", "TOLERANCE", "check"]

Array = NDArray[Any]
Evaluate = Callable[[Array], Mapping[str, Array]]

TOLERANCE = 1e-4
BATCHES = (1, 3, 17)
_SEED = 7_402_917
_PAIRS, _STEP, _ALLOWED = 4, 3e-6, 4.0
_TINY = float(np.finfo(np.float32).tiny)


def check(
    run: Evaluate,
    reference: Evaluate,
    mean: Array,
    scale: Array,
    *,
    tolerance: float = TOLERANCE,
    seed: int = _SEED,
) -> dict[str, float]:
    """Compare two ways of computing ``prediction``, ``gradient`` and ``distance`` on fresh random images.

    Parameters
    ----------
    run : callable
        Images (B, C, H, W) float32 to named arrays with B rows: the file to be.
    reference : callable
        The same by autograd.
    mean, scale : (C, H, W) float32
        The images are ``mean + scale * N(0, 1)``, in batches of 1, 3 and 17.
    tolerance : float
        Largest difference allowed, over the largest value of the reference.
    seed : int

    Returns
    -------
    dict of str to float
        Largest relative error per output; ``rows``, the largest difference between a row alone and in its
        batch; and ``kinks``, how many gradients were compared to within their own jump (see Notes).

    Raises
    ------
    ExportError
        With the table of errors, when one is above ``tolerance``, when the shapes differ, or when the
        reference's gradient changes with the image and the other one does not.

    Notes
    -----
    ReLU and max-pool make the gradient jump where a unit is at its kink, and among a million units a few are
    there to within float32 rounding. An image with a larger error is therefore looked at again: where the
    reference itself jumps under steps of 3e-6 scales, errors up to four of its jumps are allowed, but for
    no more than half as many as there are images.
    """
    rng = np.random.default_rng(seed)
    shape = np.shape(mean)
    batches = [np.asarray(mean + scale * rng.standard_normal((size, *shape)), dtype=np.float32) for size in BATCHES]
    wanted = [reference(images) for images in batches]
    found = [run(images) for images in batches]
    sizes = {name: max(float(np.abs(part[name]).max()) for part in wanted) for name in wanted[0]}
    table: dict[str, list[float]] = {name: [] for name in (*sizes, "rows")}
    problems: list[str] = []
    kinks = 0
    for images, want, got in zip(batches, wanted, found, strict=True):
        _same_shapes(want, got)
        pick = [i for i in sorted({0, len(images) // 2, len(images) - 1}) if len(images) > 1]
        alone = [run(images[i : i + 1]) for i in pick]
        rows = [0.0]
        for name, size in sizes.items():
            errors = _relative(got[name], want[name], size)
            apart = [_relative(one[name], got[name][i : i + 1], size) for i, one in zip(pick, alone, strict=True)]
            if name == "gradient":
                for row, error in [*enumerate(errors[:, None]), *zip(pick, apart, strict=True)]:
                    if _above(error, tolerance).any():
                        allowed = _jump(reference, images[row], scale, want[name][row], size, rng)
                        if error[0] <= allowed:
                            error[0] = 0.0
                            kinks += 1
            table[name].append(float(errors.max()))
            rows.extend(float(error[0]) for error in apart)
        table["rows"].append(max(rows))
        if "gradient" in sizes and _stuck(got["gradient"], want["gradient"], tolerance):
            problems.append("the gradient does not change with the image as the model's does")
    if kinks > sum(BATCHES) // 2:
        problems.append(f"{kinks} of {sum(BATCHES)} gradients differ at kinks")
    if any(_above(np.array(errors), tolerance).any() for errors in table.values()):
        problems.append("errors above the limit")
    if problems:
        raise ExportError(_explain(problems, table, tolerance, wanted))
    return {**{name: max(errors) for name, errors in table.items()}, "kinks": float(kinks)}


def _relative(got: Array, want: Array, size: float) -> Array:
    """Return per row the largest difference over ``size``; infinity where something is not finite."""
    axes = tuple(range(1, want.ndim))
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64)).max(axis=axes)
    return np.where(np.isfinite(difference), difference / max(size, _TINY), np.inf)


def _above(errors: Array, tolerance: float) -> Array:
    return ~(errors <= tolerance)


def _jump(
    reference: Evaluate, image: Array, scale: Array, gradient: Array, size: float, rng: np.random.Generator
) -> float:
    """Return the error allowed for a gradient that jumps close to ``image``."""
    steps = rng.standard_normal((_PAIRS, *image.shape)) * (_STEP * scale + 4e-7 * np.abs(image))
    near = np.concatenate((image + steps, image - steps)).astype(np.float32)
    jumps = _relative(reference(near)["gradient"], np.broadcast_to(gradient, near.shape), size)
    return _ALLOWED * float(jumps.max())


def _stuck(got: Array, want: Array, tolerance: float) -> bool:
    changes = [float(np.abs(part - part[:1]).max()) for part in (want, got)]
    return changes[0] > 10 * tolerance * float(np.abs(want).max()) and not changes[1] > 0.5 * changes[0]


def _same_shapes(want: Mapping[str, Array], got: Mapping[str, Array]) -> None:
    shapes = [{name: value.shape for name, value in part.items()} for part in (want, got)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"the ONNX graph gives shapes {shapes[1]}, the model {shapes[0]}")


def _explain(
    problems: list[str], table: Mapping[str, list[float]], tolerance: float, wanted: list[Mapping[str, Array]]
) -> str:
    finite = all(np.isfinite(value).all() for part in wanted for value in part.values())
    if not finite:
        problems = ["the model itself gives NaN or infinity: train it anew", *problems]
    head = "relative error".ljust(14) + "".join(f"batch {size}".rjust(11) for size in BATCHES)
    lines = [name.ljust(14) + "".join(f"{e:.1e}".rjust(11) for e in errors) for name, errors in table.items()]
    return "\n".join(
        [
            f"the ONNX graph does not do what the model does (limit {tolerance:.0e}), nothing was written: "
            + "; ".join(dict.fromkeys(problems)),
            head,
            *lines,
        ]
    )
