"""Friedel oscillations of independent impurities, the training data of arXiv:2006.15898, Eq. 3.

dn(r) = sum_w A_w cos(2 k |r - r_w| + alpha_w) / (|r - r_w| + eps)^p, minus its mean, divided by max|.|, plus noise.
All random numbers are drawn with numpy first; the compiled kernel only sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError
from stm_models.physics.surface import friedel_kernel
from stm_models.physics.surface.friedel_recipe import Recipe, Spots
from stm_models.physics.surface.placement import choose_batch

__all__ = ["Draws", "Samples", "draw", "generate", "labels", "render"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_DARTS = 16  # for each position wanted


@dataclass(frozen=True)
class Draws:
    """Every random number of a batch: S samples, V biases, at most N impurities and D decoys.

    Attributes
    ----------
    positions : (S, N, 2) float64, px
        y, x; those inside the frame first, unused ones NaN.
    inside, total : (S,) int64
        Impurities inside the frame, and all of them.
    amplitude, phase : (S, V, N) float64
        Phase in rad.
    exponent, noise : (S,) float64
    core : (S, V, N) float64
        Amplitudes of the spots on the impurities; zero without core randomisation.
    core_width, occluded : (S, N) float64, px
    decoys : (S, D, 2) float64, px
    decoy_count : (S,) int64
    decoy : (S, V, D) float64
    decoy_width : (S, D) float64, px
    normal : (S, V, L, L) float32
        Unit white noise; zero where no sample has any.
    """

    positions: Floats
    inside: Ints
    total: Ints
    amplitude: Floats
    phase: Floats
    exponent: Floats
    noise: Floats
    core: Floats
    core_width: Floats
    occluded: Floats
    decoys: Floats
    decoy_count: Ints
    decoy: Floats
    decoy_width: Floats
    normal: NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """A batch.

    Attributes
    ----------
    images : (S, V, L, L) float32
    labels : (S, L, L) float32
        1/Ni at each of the Ni impurities' pixels.
    draws : Draws
        Holds the positions and every other parameter.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.float32]
    draws: Draws


def generate(
    recipe: Recipe, biases: ArrayLike, wave_numbers: ArrayLike, samples: int, rng: np.random.Generator
) -> Samples:
    """Draw and render a batch.

    Parameters
    ----------
    recipe : Recipe
    biases : (V,) array_like, V
        Matter where amplitudes and phases are smooth functions of the bias.
    wave_numbers : (V,) or (samples, V) array_like, rad/px
    samples : int
    rng : numpy.random.Generator

    Raises
    ------
    InputError
        When the wave numbers are not positive, shapes differ or so many impurities do not fit.
    """
    k = _wave_numbers(biases, wave_numbers, samples)
    draws = draw(recipe, biases, samples, rng)
    return Samples(render(recipe, draws, k), labels(draws.positions, draws.inside, recipe.size), draws)


def draw(recipe: Recipe, biases: ArrayLike, samples: int, rng: np.random.Generator) -> Draws:
    """Draw every random number of a batch; arguments as in :func:`generate`."""
    volts = np.asarray(biases, np.float64)
    offset = volts - volts.mean()
    shape = (samples, len(volts), recipe.impurities[1] + recipe.outside[1])
    inside = rng.integers(*recipe.impurities, samples, endpoint=True)
    outside = rng.integers(*recipe.outside, samples, endpoint=True)
    decoy_count = rng.integers(*recipe.decoys, samples, endpoint=True)
    positions, decoys = _places(recipe, inside, outside, decoy_count, rng)
    if recipe.phase == "independent":
        amplitude = rng.uniform(*recipe.amplitude, shape)
        phase = rng.uniform(0, 2 * np.pi, shape)
    else:
        one = (samples, 1, shape[2])
        bias = offset[:, None]
        relative = 1 + recipe.amplitude_slope * rng.standard_normal(one) * bias
        amplitude = rng.uniform(*recipe.amplitude, one) * relative
        phase = rng.uniform(0, 2 * np.pi, one) + recipe.phase_slope * rng.standard_normal(one) * bias
    exponent = rng.uniform(*recipe.exponent, samples)
    noise = rng.uniform(*recipe.noise, samples)
    if recipe.cores is None:
        core, core_width, occluded = np.zeros(shape), np.ones((samples, shape[2])), np.zeros((samples, shape[2]))
    else:
        core, core_width = _spots(recipe.cores, offset, samples, shape[2], rng)
        occluded = rng.uniform(*recipe.cores.occluded, (samples, shape[2]))
    decoy, decoy_width = _spots(recipe.decoy, offset, samples, recipe.decoys[1], rng)
    full = (samples, len(volts), recipe.size, recipe.size)
    normal = rng.standard_normal(full, np.float32) if recipe.noise[1] > 0 else np.zeros(full, np.float32)
    return Draws(
        positions, inside, inside + outside, amplitude, phase, exponent, noise, core, core_width, occluded,
        decoys, decoy_count, decoy, decoy_width, normal,
    )  # fmt: skip


def render(recipe: Recipe, draws: Draws, wave_numbers: ArrayLike) -> NDArray[np.float32]:
    """Sum the waves of a batch: (S, V, L, L) float32; wave numbers (S, V) in rad/px."""
    k = np.ascontiguousarray(wave_numbers, np.float64)
    images = np.empty(draws.normal.shape, np.float32)
    friedel_kernel.render(
        draws.positions, draws.total, draws.amplitude, draws.phase / (2 * np.pi), k / np.pi, draws.exponent,
        recipe.cutoff, draws.noise, draws.core, draws.core_width, draws.occluded, draws.decoys, draws.decoy_count,
        draws.decoy, draws.decoy_width, draws.normal, images,
    )  # fmt: skip
    return images


def labels(positions: Floats, inside: Ints, size: int) -> NDArray[np.float32]:
    """Y = 1/Ni at the pixels of the impurities inside the frame, which sums to 1: (S, L, L) float32."""
    result = np.zeros((len(positions), size, size), np.float32)
    sample, number = np.nonzero(np.arange(positions.shape[1]) < inside[:, None])
    pixel = np.clip(np.rint(positions[sample, number]).astype(int), 0, size - 1)
    np.add.at(result, (sample, pixel[:, 0], pixel[:, 1]), (1 / inside[sample]).astype(np.float32))
    return result


def _wave_numbers(biases: ArrayLike, wave_numbers: ArrayLike, samples: int) -> Floats:
    volts, k = np.asarray(biases, np.float64), np.asarray(wave_numbers, np.float64)
    if volts.ndim != 1 or k.shape not in (volts.shape, (samples, *volts.shape)):
        raise InputError(
            f"wave numbers have shape {k.shape} and biases {volts.shape}: expected one wave number for each bias, "
            f"or ({samples}, biases) of them"
        )
    if not np.all(np.isfinite(k) & (k > 0)):
        raise InputError(
            "a wave number is not a positive number: expected rad/px, e.g. 0.88 for Au(111) on 4.7 Å pixels"
        )
    return np.broadcast_to(k, (samples, len(volts)))


def _places(
    recipe: Recipe, inside: Ints, outside: Ints, decoy_count: Ints, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    samples, size = len(inside), recipe.size
    most = recipe.impurities[1] + recipe.outside[1] + recipe.decoys[1]
    places = np.full((samples, most, 2), np.nan)
    shape = (samples, _DARTS * (recipe.impurities[1] + 1), 2)
    darts = rng.integers(0, size, shape).astype(float) if recipe.on_pixel else rng.uniform(-0.5, size - 0.5, shape)
    around = np.empty((samples, 0, 2))
    if recipe.outside[1]:
        reach = 0.5 + recipe.margin
        around = rng.uniform(-reach, size - 1 + reach, (samples, 2 * _DARTS * (recipe.outside[1] + 1), 2))
    decoy_darts = np.empty((samples, 0, 2))
    if recipe.decoys[1]:
        decoy_darts = rng.uniform(-0.5, size - 0.5, (samples, _DARTS * (recipe.decoys[1] + 1), 2))
    found = choose_batch(
        darts, around, decoy_darts, inside, outside, decoy_count, recipe.minimum_distance, size, places
    )
    if not found:
        raise InputError(
            f"{recipe.impurities[1]} impurities, {recipe.outside[1]} outside and {recipe.decoys[1]} decoys do not fit "
            f"in {size} px at least {recipe.minimum_distance:g} px apart: ask for fewer, a smaller distance or a "
            "larger frame"
        )
    positions = np.full((samples, recipe.impurities[1] + recipe.outside[1], 2), np.nan)
    decoys = np.full((samples, recipe.decoys[1], 2), np.nan)
    number = np.arange(most)
    total = inside + outside
    _move(places, number[None] < total[:, None], positions)
    _move(places, (number[None] >= total[:, None]) & (number[None] < (total + decoy_count)[:, None]), decoys)
    return positions, decoys


def _move(source: Floats, chosen: NDArray[np.bool_], target: Floats) -> None:
    """Pack the chosen rows of each sample to the front of ``target``."""
    sample, _ = np.nonzero(chosen)
    rank = (np.cumsum(chosen, axis=1) - 1)[chosen]
    target[sample, rank] = source[chosen]


def _spots(spots: Spots, offset: Floats, samples: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Amplitudes (S, V, count) and widths (S, count)."""
    height = rng.uniform(-spots.amplitude, spots.amplitude, (samples, 1, count))
    slope = spots.slope * rng.standard_normal((samples, 1, count))
    return height * (1 + slope * offset[:, None]), rng.uniform(*spots.width, (samples, count))
