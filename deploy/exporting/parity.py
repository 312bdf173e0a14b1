"""Does the ONNX graph compute what the torch model computes?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.exporting.errors import ExportError

__all__ = ["BATCHES", "FOCUSED", "TOLERANCE", "check", "check_answers", "check_focus"]

Array = NDArray[Any]
Evaluate = Callable[..., Mapping[str, Array]]

TOLERANCE = 1e-4
"""Largest difference allowed, over the largest value of the reference."""
BATCHES = (1, 3, 17)
FOCUSED = (1, 8)
_SEED = 7_402_917
_PAIRS, _STEP, _ULPS, _ALLOWED = 4, 3e-6, 4e-7, 4.0
_TINY = float(np.finfo(np.float32).tiny)
_NEAR, _FAR = 1e-6, 0.5  # noise in images like the training's, in scales
_STEPPED = ("lower", "upper", "novelty")
"""Answers that are looked up in tables: they may jump as maps do."""


def check(
    run: Evaluate,
    reference: Evaluate,
    mean: Array,
    scale: Array,
    *,
    maps: Collection[str] = ("gradient",),
    truth: Evaluate | None = None,
) -> dict[str, float]:
    """Compare two ways of computing named outputs on fresh random images.

    Parameters
    ----------
    run : callable
        Images (B, C, H, W) float32 to named arrays with B rows: the file to be.
    reference : callable
        The same by autograd.
    mean, scale : (C, H, W) float32
        The images are ``mean + scale * N(0, 1)``, in batches of 1, 3 and 17.
    maps : collection of str
        Which of the outputs are explanations: they may jump at kinks, and must change with the image.
    truth : callable, optional
        The reference in float64, see Notes.

    Returns
    -------
    dict of str to float
        Largest relative error per output; ``rows``, the largest difference between a row alone and in its
        batch; ``kinks``, how many maps were compared to within their own jump, and ``rounding``, how many
        values to within float32's own error (see Notes).

    Raises
    ------
    ExportError
        With the table of errors, when one is above `TOLERANCE`, when the shapes differ, or when a map of the
        reference changes with the image and the other one does not.

    Notes
    -----
    ReLU and max-pool make the gradient jump where a unit is at its kink, and among a million units a few are
    there to within float32 rounding. An image with a larger error is therefore looked at again: where the
    reference itself jumps under steps of 3e-6 scales, errors up to four of its jumps are allowed, but for
    no more than half as many as there are images.

    A model can be so badly conditioned that float32 itself is off by more than `TOLERANCE`: two correct programs
    then differ by that much. A row with a larger error is therefore held against ``truth`` too: it passes where it is
    off by no more than four times what the float32 reference is off, in that row, in the median row of its batch, or,
    as it may have been lucky there, in images that differ from that row's by rounding.
    An error of the graph, which float64 does not share, is not let through by this.
    """
    rng = np.random.default_rng(_SEED)
    batches = [(_draw(rng, mean, scale, size),) for size in BATCHES]
    return _compare(run, reference, truth, batches, maps, scale, rng)


def check_focus(
    run: Evaluate,
    reference: Evaluate,
    mean: Array,
    scale: Array,
    *,
    maps: Collection[str] = ("gradient",),
    truth: Evaluate | None = None,
) -> dict[str, float]:
    """Compare two ways of explaining chosen pixels.

    Half of the larger batch is one image at several pixels, whose maps must differ as the reference's do.

    Parameters
    ----------
    run : callable
        Images (B, C, H, W) float32 and a focus, (B,) or (1,) int64, to named arrays with B rows: the file to be. A
        focus is the pixel ``y * W + x``, or -1 for the strongest.
    reference : callable
        The same by autograd, of a focus (B,), or None for the strongest.
    mean, scale : (C, H, W) float32
        The images are ``mean + scale * N(0, 1)``, in batches of 1 and 8.
    maps : collection of str
        Which of the outputs are explanations.
    truth : callable, optional
        The reference in float64, see the notes of `check`.

    Returns
    -------
    dict of str to float
        ``focus``: the largest relative error of the maps.

    Raises
    ------
    ExportError
        As `check`, and when one focus for all images, or -1, does not explain what it asks for.
    """
    rng = np.random.default_rng(_SEED + 1)
    pixels = int(np.prod(np.shape(mean)[1:]))
    batches: list[tuple[Array, ...]] = []
    for size in FOCUSED:
        images = _draw(rng, mean, scale, size)
        images[: size // 2] = images[0]
        batches.append((images, rng.permutation(pixels)[:size].astype(np.int64)))
    errors = _compare(run, reference, truth, batches, maps, scale, rng)
    images = batches[-1][0]
    one = rng.integers(pixels, size=1)
    ways = {"one for all": (run(images, one), reference(images, one.repeat(len(images))))}
    ways["-1"] = (run(images, np.array([-1])), reference(images, None))
    for way, (got, wanted) in ways.items():
        for name in maps:
            found, want = got[name], wanted[name]
            # Kinks were judged above.
            if found.shape != want.shape or np.median(_relative(found, want, float(np.abs(want).max()))) > TOLERANCE:
                raise ExportError(
                    f"{name} of the ONNX graph does not explain what focus {way} asks for, nothing was written"
                )
    return {"focus": max(errors[name] for name in maps)}


def check_answers(
    run: Evaluate,
    reference: Evaluate,
    known: Array,
    mean: Array,
    scale: Array,
    *,
    truth: Evaluate | None = None,
) -> dict[str, float]:
    """Compare two ways of answering images like the training's; other arguments and errors are those of `check`.

    Images of mere noise lie so far outside that distances are huge, and p-values and factors of intervals those at one
    end of their tables. Here each answer is compared over its range: half of the images are held-out ones with a
    millionth of noise, the others are blended with noise more and more, up to one half.

    Parameters
    ----------
    known : (K, C, H, W) float32
        Images that the model was not trained on, as the bundle keeps them.

    Returns
    -------
    dict of str to float
        Largest error per answer, each row's over its own size or the median row's where that is larger, and the rest
        of `check`.
    """
    rng = np.random.default_rng(_SEED + 2)
    batches: list[tuple[Array, ...]] = []
    for size in BATCHES:
        images = known[rng.permutation(max(size, len(known)))[:size] % len(known)]
        share = np.full(size, _NEAR)
        share[1::2] = np.geomspace(_NEAR, _FAR, len(share[1::2]))
        share = share[:, None, None, None]
        batches.append((np.asarray((1 - share) * images + share * _draw(rng, mean, scale, size), np.float32),))
    return _compare(run, reference, truth, batches, (), scale, rng, by_row=True)


def _draw(rng: np.random.Generator, mean: Array, scale: Array, size: int) -> Array:
    return np.asarray(mean + scale * rng.standard_normal((size, *np.shape(mean))), dtype=np.float32)


def _compare(
    run: Evaluate,
    reference: Evaluate,
    truth: Evaluate | None,
    batches: Sequence[tuple[Array, ...]],
    maps: Collection[str],
    scale: Array,
    rng: np.random.Generator,
    *,
    by_row: bool = False,
) -> dict[str, float]:
    """Compare on batches of arguments, the images first; see `check`, and for ``by_row`` `check_answers`."""
    wanted = [reference(*batch) for batch in batches]
    if not all(np.isfinite(value).all() for part in wanted for value in part.values()):
        raise ExportError("the model itself gives NaN or infinity: train it anew; nothing was written")
    found = [run(*batch) for batch in batches]
    total = sum(len(batch[0]) for batch in batches)
    sizes = {name: _sizes([part[name] for part in wanted], by_row=by_row) for name in wanted[0]}
    may_jump = [*maps, *(name for name in _STEPPED if by_row and name in sizes)]
    table: dict[str, list[float]] = {name: [] for name in (*sizes, "rows")}
    problems: list[str] = []
    excused = {"kinks": 0, "rounding": 0}
    for number, (batch, want, got) in enumerate(zip(batches, wanted, found, strict=True)):
        _same_shapes(want, got)
        count = len(batch[0])
        pick = [i for i in sorted({0, count // 2, count - 1}) if count > 1]
        alone = [run(*(values[i : i + 1] for values in batch)) for i in pick]
        exact: Mapping[str, Array] = {}
        rows = [0.0]
        for name, parts in sizes.items():
            size = parts[number]
            errors = _relative(got[name], want[name], size)
            apart = [
                _relative(one[name], got[name][i : i + 1], size[i : i + 1]) for i, one in zip(pick, alone, strict=True)
            ]
            if truth is not None and _above(np.concatenate([errors, *apart])).any():
                exact = exact or truth(*batch)
                own = _relative(want[name], exact[name], size)
                allowed = np.maximum(_ALLOWED * np.maximum(own, np.median(own)), TOLERANCE)
                allowed = np.where(np.isfinite(allowed), allowed, TOLERANCE)
                off = _relative(got[name], exact[name], size)
                for worse in np.flatnonzero(_above(errors) & (off > allowed)):
                    near = _near(tuple(values[worse] for values in batch), 0.0, rng)
                    others = _relative(reference(*near)[name], truth(*near)[name], size[worse])
                    if np.isfinite(others).all():
                        allowed[worse] = max(allowed[worse], _ALLOWED * float(others.max()))
                bad = _above(errors) & (off <= allowed)
                errors = np.where(bad, 0.0, errors)
                excused["rounding"] += int(bad.sum())
                for row, error in zip(pick, apart, strict=True):
                    if error[0] <= 2 * allowed[row]:
                        error[0] = min(error[0], TOLERANCE)
            if name in may_jump:
                for row, error in [*enumerate(errors[:, None]), *zip(pick, apart, strict=True)]:
                    if _above(error).any():
                        own_batch = tuple(values[row] for values in batch)
                        jump = _jump(reference, name, own_batch, scale, want[name][row], size[row], rng)
                        if error[0] <= jump:
                            error[0] = 0.0
                            excused["kinks"] += 1
            table[name].append(float(errors.max()))
            rows.extend(float(error[0]) for error in apart)
        table["rows"].append(max(rows))
        for name in maps:
            if _stuck(got[name], want[name]):
                problems.append(f"{name} does not change with the image as the model's does")
    kinks = excused["kinks"]
    if kinks > len(may_jump) * (total // 2):
        problems.append(f"{kinks} of {len(may_jump) * total} {'maps' if maps else 'answers'} differ at kinks")
    if any(_above(np.array(errors)).any() for errors in table.values()):
        problems.append("errors above the limit")
    if problems:
        raise ExportError(_explain(problems, table, [len(batch[0]) for batch in batches]))
    worst = {name: max(errors) for name, errors in table.items()}
    return worst | {name: float(number) for name, number in excused.items()}


def _sizes(values: Sequence[Array], *, by_row: bool) -> list[Array]:
    """Return what the errors of each batch's rows are measured in: the largest value of all, or see `check_answers`."""
    own = [np.abs(part).reshape(len(part), -1).max(axis=1).astype(np.float64) for part in values]
    rows = np.concatenate(own)
    return [np.maximum(part, np.median(rows) if by_row else rows.max()) for part in own]


def _relative(got: Array, want: Array, size: Array | float) -> Array:
    """Return per row the largest difference over ``size``; infinity where something is not finite."""
    axes = tuple(range(1, want.ndim))
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64)).max(axis=axes)
    return np.where(np.isfinite(difference), difference / np.maximum(size, _TINY), np.inf)


def _above(errors: Array) -> Array:
    return ~(errors <= TOLERANCE)


def _jump(
    reference: Evaluate,
    name: str,
    arguments: tuple[Array, ...],
    scale: Array,
    map: Array,
    size: float,
    rng: np.random.Generator,
) -> float:
    """Return the error allowed for a map that jumps close to the image, the first of ``arguments``."""
    near = _near(arguments, _STEP * scale, rng)
    jumps = _relative(reference(*near)[name], np.broadcast_to(map, (len(near[0]), *map.shape)), size)
    return _ALLOWED * float(jumps.max())


def _near(arguments: tuple[Array, ...], step: Array | float, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return a batch of images within ``step`` and rounding of the first of one row's arguments, and the others."""
    image, *others = arguments
    steps = rng.standard_normal((_PAIRS, *image.shape)) * (step + _ULPS * np.abs(image))
    near = np.concatenate((image + steps, image - steps)).astype(np.float32)
    return (near, *(np.repeat(values[None], len(near), axis=0) for values in others))


def _stuck(got: Array, want: Array) -> bool:
    changes = [float(np.abs(part - part[:1]).max()) for part in (want, got)]
    return changes[0] > 10 * TOLERANCE * float(np.abs(want).max()) and not changes[1] > 0.5 * changes[0]


def _same_shapes(want: Mapping[str, Array], got: Mapping[str, Array]) -> None:
    shapes = [{name: value.shape for name, value in part.items()} for part in (want, got)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"the ONNX graph gives shapes {shapes[1]}, the model {shapes[0]}")


def _explain(problems: list[str], table: Mapping[str, list[float]], rows: Sequence[int]) -> str:
    width = max(len(name) for name in ("relative error", *table)) + 1
    head = "relative error".ljust(width) + "".join(f"batch {count}".rjust(11) for count in rows)
    lines = [name.ljust(width) + "".join(f"{e:.1e}".rjust(11) for e in errors) for name, errors in table.items()]
    return "\n".join(
        [
            f"the ONNX graph does not do what the model does (limit {TOLERANCE:.0e}), nothing was written: "
            + "; ".join(dict.fromkeys(problems)),
            head,
            *lines,
        ]
    )
