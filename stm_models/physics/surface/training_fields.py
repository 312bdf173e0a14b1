"""Training fields: waves around impurities whose cores are random, spots that are no impurities, and an instrument.

A network that has seen them must find an impurity by its rings: the core says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from stm_models.errors import unknown
from stm_models.physics.surface import friedel, noise
from stm_models.physics.surface.cores import RINGS_BEGIN, add_spot, occlude
from stm_models.physics.surface.field_recipe import GAIN_UNIT, WAVES, FieldRecipe
from stm_models.physics.surface.friedel_recipe import Recipe
from stm_models.physics.surface.materials import Material, lifetime_broadening
from stm_models.physics.surface.placement import place
from stm_models.physics.surface.scattering import Scatterers, density, pixel_grid

__all__ = ["TrainingField", "strength", "training_field"]

Floats = NDArray[np.float64]
_SET_POINT_WIDTH = 6.0  # px


@dataclass(frozen=True)
class TrainingField:
    """A stack of maps and what is true about it.

    Attributes
    ----------
    maps : (V, L, L) float32
        dI/dV relative to that of the clean surface; x is the fast axis of the scan.
    positions : (N, 2) float64, px
        y, x of the impurities inside the frame, in the middle of the stack.
    decoys : (D, 2) float64, px
    oscillation : float
        rms of the waves more than 3 px from every impurity: the unit of noise, cores and decoys.
    levels : dict of str to float
        What was drawn once for the field: white, one_over_f, line, power, wave_number, ... .
    """

    maps: NDArray[np.float32]
    positions: Floats
    decoys: Floats
    oscillation: float
    levels: dict[str, float]


def training_field(
    waves: str, recipe: FieldRecipe, rng: np.random.Generator, material: Material, biases: Floats, pixel_size: float
) -> TrainingField:
    """Simulate one field.

    Parameters
    ----------
    waves : str
        A name of :data:`~stm_models.physics.surface.field_recipe.WAVES`.
    recipe : FieldRecipe
    rng : numpy.random.Generator
    material : Material
    biases : (V,) float64, V
    pixel_size : float, Å

    Raises
    ------
    InputError
        For other waves, a bias at or below the band bottom, too coarse pixels, or too many impurities.
    """
    if waves not in WAVES:
        raise unknown("waves", waves, WAVES)
    levels = {
        name: float(rng.uniform(*getattr(recipe, name)))
        for name in ("white", "one_over_f", "line", "power", "spikes", "wave_number", "broadening", "tip",
                     "drift", "gain", "set_point", "plane", "stripes", "contrast", "exponent")
    }  # fmt: skip
    size = recipe.size
    inside, outside, decoys = _places(recipe, rng)
    positions = np.concatenate([inside, outside])
    displacement = noise.drift(rng, len(biases), levels["drift"] / 1.3)
    k = material.wave_number(biases, pixel_size) * levels["wave_number"]
    material.check_pixels(k, pixel_size)
    if waves == "scattering":
        gamma = levels["broadening"] * lifetime_broadening(biases)
        complex_k = levels["wave_number"] * material.complex_wave_number(biases, gamma, pixel_size)
        scatterers = _scatterers(recipe, rng, positions)
        ratio = density(pixel_grid(size), scatterers, biases, complex_k, displacement)
        field = ratio.reshape(-1, size, size) - 1
    else:
        displacement = np.zeros_like(displacement)
        field = _friedel(recipe, rng, positions, biases, k, levels["exponent"])
        field *= levels["contrast"] / max(strength(field, positions), 1e-12)
    oscillation = strength(noise.blur(field, levels["tip"]), positions)
    _randomise_cores(field, recipe, rng, positions, decoys, displacement, biases, oscillation)

    maps = noise.blur(1 + field, levels["tip"]) * (1 + levels["gain"] * biases / GAIN_UNIT)[:, None, None]
    maps *= noise.set_point(rng, size, levels["set_point"], _SET_POINT_WIDTH)
    if material.stripe_period is not None:
        maps *= noise.stripes(rng, size, material.stripe_period / pixel_size, levels["stripes"])
    maps += noise.plane(rng, size, levels["plane"])
    maps += oscillation * _noise(recipe, rng, levels, maps.shape)
    return TrainingField(maps.astype(np.float32), inside, decoys, oscillation, levels)


def _places(recipe: FieldRecipe, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Impurities inside the frame, those around it, decoys."""
    size, nothing = recipe.size, np.empty((0, 2))
    count = int(rng.integers(*recipe.impurities, endpoint=True))
    around = round(count * ((1 + 2 * recipe.margin / size) ** 2 - 1))
    inside = place(rng, count, size, 0.0, recipe.minimum_distance, nothing)
    outside = place(rng, around, size, recipe.margin, recipe.minimum_distance, inside) if around else nothing
    number = int(rng.integers(*recipe.decoys, endpoint=True))
    taken = np.concatenate([inside, outside])
    return inside, outside, place(rng, number, size, 0.0, recipe.minimum_distance, taken) if number else nothing


def _scatterers(recipe: FieldRecipe, rng: np.random.Generator, positions: Floats) -> Scatterers:
    count = len(positions)
    phase = rng.uniform(*recipe.phase_shift, count) * rng.choice([-1.0, 1.0], count)
    slope = recipe.phase_slope * rng.standard_normal(count)
    return Scatterers(positions, phase, slope, rng.uniform(*recipe.absorption, count))


def _friedel(
    recipe: FieldRecipe, rng: np.random.Generator, positions: Floats, biases: Floats, k: Floats, exponent: float
) -> Floats:
    """Eq. 3 about positions that are already chosen, without noise."""
    smooth = recipe.phases == "smooth" or (recipe.phases == "both" and rng.random() < 0.5)
    plain = Recipe(
        size=recipe.size, impurities=(1, 1), exponent=(exponent, exponent), noise=(0.0, 0.0),
        phase="smooth" if smooth else "independent", phase_slope=2 * recipe.phase_slope,
    )  # fmt: skip
    count = len(positions)
    # One sample is drawn for each impurity; its amplitudes and phases are all that is taken from it.
    drawn = friedel.draw(plain, biases, count, rng)
    together = friedel.Draws(
        positions[None], np.array([count]),
        np.ascontiguousarray(drawn.amplitude[:, :, 0].T)[None], np.ascontiguousarray(drawn.phase[:, :, 0].T)[None],
        np.array([exponent]), np.zeros(1), np.zeros((1, len(biases), recipe.size, recipe.size), np.float32),
    )  # fmt: skip
    return friedel.render(plain, together, k[None])[0].astype(np.float64)


def _randomise_cores(
    field: Floats, recipe: FieldRecipe, rng: np.random.Generator, positions: Floats, decoys: Floats,
    displacement: Floats, biases: Floats, oscillation: float,
) -> None:  # fmt: skip
    """Take the waves out of every core, in place, and put spots there and on the decoys."""
    places = np.concatenate([positions, decoys])
    count = len(places)
    radius = rng.uniform(*recipe.occluded, len(positions))
    height = oscillation * rng.uniform(*recipe.core, count) * rng.choice([-1.0, 1.0], count)
    slope = recipe.core_slope * rng.standard_normal(count)
    width = rng.uniform(*recipe.core_width, count)
    for v, volt in enumerate(biases):
        for i, (y, x) in enumerate(positions - displacement[v]):
            occlude(field[v], y, x, radius[i])
        for i, (y, x) in enumerate(places - displacement[v]):
            add_spot(field[v], y, x, height[i] * (1 + slope[i] * volt), width[i])


def strength(field: Floats, positions: Floats) -> float:
    """Standard deviation over the pixels away from impurities, of all of them where none is."""
    nearest, _ = KDTree(positions).query(pixel_grid(field.shape[-1]))
    away = nearest > RINGS_BEGIN
    values = field.reshape(len(field), -1)[:, away if away.any() else ~away]
    return float(np.sqrt(values.var(axis=1).mean()))


def _noise(recipe: FieldRecipe, rng: np.random.Generator, levels: dict[str, float], shape: tuple[int, ...]) -> Floats:
    """Independent from line to line, in units of the oscillation."""
    total = (
        levels["white"] * rng.standard_normal(shape)
        + levels["one_over_f"] * noise.one_over_f(rng, shape, power=levels["power"])
        + levels["line"] * noise.line_offsets(rng, shape)
    )
    total *= (1 + recipe.uneven) ** rng.uniform(-1, 1, (shape[0], 1, 1))
    hit = rng.random(shape) < levels["spikes"]
    total[hit] += rng.uniform(-10, 10, int(hit.sum())) * max(levels["white"], 0.3)
    return total
