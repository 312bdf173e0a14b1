"""Pseudo-experiments: multiple scattering, short-range spots and an instrument, with the truth kept.

Physically different from the training data of :mod:`~stm_models.physics.surface.friedel`, so that going from
simulation to experiment is tested honestly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from stm_models.errors import InputError
from stm_models.physics.compiled import compiled
from stm_models.physics.surface import materials, noise, presets
from stm_models.physics.surface.bound_state import bound_state_map
from stm_models.physics.surface.cores import RINGS_BEGIN, add_spot
from stm_models.physics.surface.materials import Material
from stm_models.physics.surface.placement import place
from stm_models.physics.surface.presets import Preset
from stm_models.physics.surface.scattering import Scatterers, density, pixel_grid

__all__ = ["PIXEL_SIZE", "Experiment", "pseudo_experiment"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
_FRAME = 80  # px, to which the presets' numbers belong
_SLOPE_UNIT = 0.25  # V

PIXEL_SIZE = 4.6875
"""375 Å on 80 pixels, in Å."""


@dataclass(frozen=True)
class Experiment:
    """A stack of maps and what is true about it.

    Attributes
    ----------
    maps : (V, L, L) float32
        dI/dV relative to that of the clean surface, (bias, y, x); x is the fast axis of the scan.
    biases : (V,) float64, V
    wave_numbers : (V,) float64, rad/px
        k of the material, which an analysis would use; the shifted presets' true k differs.
    positions : (N, 2) float64, px
        y, x of the impurities inside the frame, pixel centres at whole numbers, in the middle of the stack.
    species : (N,) int64
        0 or 1.
    decoys : (D, 2) float64, px
        Spots that are no impurities.
    bound_state : (L, L) float32
        Map at the band bottom.
    pixel_size : float, Å
    material : Material
    preset : Preset
    scatterers : Scatterers
        All of them: the N inside first, then those around the frame.
    displacement : (V, 2) float64, px
        Drift of the frame at each bias.
    true_wave_numbers : (V,) complex128, rad/px
    oscillation : float
        rms of the rings as the tip sees them, more than 3 px from every impurity: the unit of the noise.
    """

    maps: Floats32
    biases: Floats
    wave_numbers: Floats
    positions: Floats
    species: NDArray[np.int64]
    decoys: Floats
    bound_state: Floats32
    pixel_size: float
    material: Material
    preset: Preset
    scatterers: Scatterers
    displacement: Floats
    true_wave_numbers: NDArray[np.complex128]
    oscillation: float


def pseudo_experiment(
    preset: str | Preset,
    rng: np.random.Generator,
    *,
    material: str | Material = "Au(111)",
    biases: int | ArrayLike = 8,
    size: int = _FRAME,
    pixel_size: float = PIXEL_SIZE,
) -> Experiment:
    """Simulate one field.

    Parameters
    ----------
    preset : str or Preset
        A name of :data:`~stm_models.physics.surface.presets.PRESETS`, or values of one's own.
    rng : numpy.random.Generator
        The same state gives the same field; presets that differ in the noise alone share everything else.
    material : str or Material
    biases : int or (V,) array_like, V
        A number spreads them over the material's window; 126 over that of Au(111) are the paper's.
    size : int, px
        L.
    pixel_size : float, Å

    Raises
    ------
    InputError
        For unknown names, a bias at or below the band bottom, or pixels too coarse for the oscillation.
    """
    recipe = presets.create(preset) if isinstance(preset, str) else preset
    metal = materials.create(material) if isinstance(material, str) else material
    volts = metal.biases(biases) if isinstance(biases, int) else np.asarray(biases, np.float64)
    if volts.ndim != 1 or not len(volts):
        raise InputError(f"biases have shape {volts.shape}: expected a list of values in V, e.g. -0.23 to 0.02")
    if size < 8:
        raise InputError(f"size is {size} px: expected at least 8")
    declared = metal.wave_number(volts, pixel_size)
    true = recipe.wave_number * metal.complex_wave_number(volts, None, pixel_size)
    metal.check_pixels(true.real, pixel_size)
    density_ratio = (size / _FRAME) ** 2
    positions, inside, decoys = _positions(recipe, rng, size, density_ratio)
    scatterers, species, spots, slopes, widths = _impurities(recipe, rng, positions)
    decoy_heights = recipe.decoy * rng.uniform(0.7, 1.3, len(decoys)) * rng.choice([-1.0, 1.0], len(decoys))
    displacement = noise.drift(rng, len(volts), recipe.drift)

    grid = pixel_grid(size)
    ratio = density(grid, scatterers, volts, true, displacement).reshape(-1, size, size)
    scattered = (ratio - 1) * _damping(positions, displacement, size, recipe.damping)
    oscillation = _ring_strength(noise.blur(scattered, recipe.tip), positions)
    maps = 1 + scattered
    heights = spots * (1 + slopes * volts[:, None])
    _add_spots(maps, positions, displacement, heights, widths)
    if recipe.core == "ring":
        _add_spots(maps, positions, displacement, -heights, recipe.ring_ratio * widths)
    flat = np.broadcast_to(decoy_heights, (len(volts), len(decoys)))
    _add_spots(maps, decoys, displacement, flat, np.full(len(decoys), recipe.decoy_width))

    maps = noise.blur(maps, recipe.tip) * (1 + recipe.gain * volts / _SLOPE_UNIT)[:, None, None]
    maps *= noise.set_point(rng, size, recipe.set_point, recipe.set_point_width)
    if metal.stripe_period is not None:
        maps *= noise.stripes(rng, size, metal.stripe_period / pixel_size, recipe.stripes)
    maps += noise.plane(rng, size, recipe.plane)
    bound = bound_state_map(positions, size, recipe.bound_state, rng)
    maps += oscillation * _noise(recipe, rng, maps.shape)
    return Experiment(
        maps.astype(np.float32), volts, declared, positions[:inside], species[:inside], decoys, bound, pixel_size,
        metal, recipe, scatterers, displacement, true, oscillation,
    )  # fmt: skip


def _positions(recipe: Preset, rng: np.random.Generator, size: int, density_ratio: float) -> tuple[Floats, int, Floats]:
    """Impurities (inside first), how many are inside, decoys."""
    low, high = recipe.impurities
    inside = max(1, round(int(rng.integers(low, high, endpoint=True)) * density_ratio))
    outside = round(inside * ((1 + 2 * recipe.margin / size) ** 2 - 1))
    nothing = np.empty((0, 2))
    first = place(rng, inside, size, 0.0, recipe.minimum_distance, nothing)
    second = place(rng, outside, size, recipe.margin, recipe.minimum_distance, first) if outside else nothing
    positions = np.concatenate([first, second])
    decoys = place(rng, round(recipe.decoys * density_ratio), size, 0.0, recipe.minimum_distance, positions)
    return positions, inside, decoys


def _impurities(
    recipe: Preset, rng: np.random.Generator, positions: Floats
) -> tuple[Scatterers, NDArray[np.int64], Floats, Floats, Floats]:
    """Scatterers, species, and heights, slopes (1/V) and widths of the spots."""
    count = len(positions)
    species = (rng.random(count) >= recipe.first_share).astype(np.int64)

    def normal(name: str) -> Floats:
        mean, deviation = np.array([getattr(kind, name) for kind in recipe.species])[species].T
        drawn: Floats = rng.normal(mean, deviation)
        return drawn

    scatterers = Scatterers(
        positions, normal("phase"), normal("slope") / _SLOPE_UNIT, np.clip(normal("absorption"), 0, 1)
    )
    spots = recipe.scale * normal("spot")
    return (
        scatterers,
        species,
        spots,
        recipe.spot_slope * rng.standard_normal(count),
        rng.uniform(*recipe.spot_width, count),
    )


def _ring_strength(scattered: Floats, positions: Floats) -> float:
    """Standard deviation over the pixels away from impurities, of all of them where none is."""
    nearest, _ = KDTree(positions).query(pixel_grid(scattered.shape[-1]))
    away = nearest > RINGS_BEGIN
    values = scattered.reshape(len(scattered), -1)
    return float(np.sqrt(values[:, away if away.any() else ~away].var(axis=1).mean()))


def _noise(recipe: Preset, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    if recipe.noise == "fast":
        return (
            recipe.white * rng.standard_normal(shape)
            + recipe.one_over_f * noise.one_over_f(rng, shape)
            + recipe.line * noise.line_offsets(rng, shape)
        )
    slow = float(np.hypot(recipe.one_over_f, recipe.line))
    return recipe.white * noise.blurred_white(rng, shape, recipe.noise_blur) + slow * noise.one_over_f(
        rng, shape, power=2.0, axis=-2
    )


@compiled
def _damping(positions: Floats, displacement: Floats, size: int, length: float) -> Floats:
    """Product over the impurities of 1 - exp(-(r / length)²): (V, size, size)."""
    result = np.ones((displacement.shape[0], size, size))
    reach = 6.0 * length
    for v in range(displacement.shape[0]):
        for i in range(positions.shape[0]):
            y, x = positions[i, 0] - displacement[v, 0], positions[i, 1] - displacement[v, 1]
            for row in range(max(0, int(np.ceil(y - reach))), min(size - 1, int(np.floor(y + reach))) + 1):
                for column in range(max(0, int(np.ceil(x - reach))), min(size - 1, int(np.floor(x + reach))) + 1):
                    square = ((row - y) ** 2 + (column - x) ** 2) / (length * length)
                    result[v, row, column] *= 1.0 - np.exp(-square)
    return result


@compiled
def _add_spots(maps: Floats, positions: Floats, displacement: Floats, heights: Floats, widths: Floats) -> None:
    """Add spots of heights (V, N) and widths (N,) to the stack, where the drifted frame sees them."""
    for v in range(maps.shape[0]):
        for i in range(positions.shape[0]):
            y, x = positions[i, 0] - displacement[v, 0], positions[i, 1] - displacement[v, 1]
            add_spot(maps[v], y, x, heights[v, i], widths[i])
