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
from stm_models.physics.surface.friedel_recipe import Recipe
from stm_models.physics.surface.placement import choose_batch

__all__ = ["Draws", "Samples", "draw", "generate", "render"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_DARTS = 16  # for each position wanted


@dataclass(frozen=True)
class Draws:
    """Every random number of a batch: S samples, V biases, at most N impurities.

    Attributes
    ----------
    positions : (S, N, 2) float64, px
        y, x; unused ones, at the end, NaN.
    total : (S,) int64
        Impurities.
    amplitude, phase : (S, V, N) float64
        Phase in rad.
    exponent, noise : (S,) float64
    normal : (S, V, L, L) float32
        Unit white noise; zero where no sample has any.
    """

    positions: Floats
    total: Ints
    amplitude: Floats
    phase: Floats
    exponent: Floats
    noise: Floats
    normal: NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """A batch.

    Attributes
    ----------
    images : (S, V, L, L) float32
    draws : Draws
        Holds the positions and every other parameter.
    """

    images: NDArray[np.float32]
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
    return Samples(render(recipe, draws, k), draws)


def draw(recipe: Recipe, biases: ArrayLike, samples: int, rng: np.random.Generator) -> Draws:
    """Draw every random number of a batch; arguments as in :func:`generate`."""
    volts = np.asarray(biases, np.float64)
    offset = volts - volts.mean()
    shape = (samples, len(volts), recipe.impurities[1])
    total = rng.integers(*recipe.impurities, samples, endpoint=True)
    positions = _places(recipe, total, rng)
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
    full = (samples, len(volts), recipe.size, recipe.size)
    normal = rng.standard_normal(full, np.float32) if recipe.noise[1] > 0 else np.zeros(full, np.float32)
    return Draws(positions, total, amplitude, phase, exponent, noise, normal)


def render(recipe: Recipe, draws: Draws, wave_numbers: ArrayLike) -> NDArray[np.float32]:
    """Sum the waves of a batch: (S, V, L, L) float32; wave numbers (S, V) in rad/px."""
    k = np.ascontiguousarray(wave_numbers, np.float64)
    images = np.empty(draws.normal.shape, np.float32)
    friedel_kernel.render(
        draws.positions, draws.total, draws.amplitude, draws.phase / (2 * np.pi), k / np.pi, draws.exponent,
        recipe.cutoff, draws.noise, draws.normal, images,
    )  # fmt: skip
    return images


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


def _places(recipe: Recipe, total: Ints, rng: np.random.Generator) -> Floats:
    samples, size = len(total), recipe.size
    shape = (samples, _DARTS * (recipe.impurities[1] + 1), 2)
    darts = rng.integers(0, size, shape).astype(float) if recipe.on_pixel else rng.uniform(-0.5, size - 0.5, shape)
    places = np.full((samples, recipe.impurities[1], 2), np.nan)
    if not choose_batch(darts, total, recipe.minimum_distance, places):
        raise InputError(
            f"{recipe.impurities[1]} impurities do not fit in {size} px at least {recipe.minimum_distance:g} px apart: "
            "ask for fewer, a smaller distance or a larger frame"
        )
    return places
