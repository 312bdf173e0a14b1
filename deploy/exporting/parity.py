"""Does the ONNX graph compute what the torch model computes?"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from deploy.exporting.comparison import compare
from deploy.exporting.errors import ExportError
from deploy.exporting.excuses import TOLERANCE, Array, Evaluate, relative

__all__ = ["BATCHES", "FOCUSED", "check", "check_answers", "check_focus"]

BATCHES = (1, 3, 17)
FOCUSED = (1, 8)
_SEED = 7_402_917
_NEAR, _FAR = 1e-6, 0.5  # noise in images like the training's, in scales


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
    return compare(run, reference, truth, batches, maps, scale, rng)


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
    errors = compare(run, reference, truth, batches, maps, scale, rng)
    images = batches[-1][0]
    one = rng.integers(pixels, size=1)
    ways = {"one for all": (run(images, one), reference(images, one.repeat(len(images))))}
    ways["-1"] = (run(images, np.array([-1])), reference(images, None))
    for way, (got, wanted) in ways.items():
        for name in maps:
            found, want = got[name], wanted[name]
            # Kinks were judged above.
            if found.shape != want.shape or np.median(relative(found, want, float(np.abs(want).max()))) > TOLERANCE:
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
    return compare(run, reference, truth, batches, (), scale, rng, by_row=True)


def _draw(rng: np.random.Generator, mean: Array, scale: Array, size: int) -> Array:
    return np.asarray(mean + scale * rng.standard_normal((size, *np.shape(mean))), dtype=np.float32)
