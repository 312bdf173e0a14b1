"""Fields of task impurity made while training: each batch is drawn, rendered and prepared on the training's device.

The distributions are those of `stm_models.physics.surface.training_fields` with Friedel waves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stm_models.errors import InputError
from stm_models.physics.surface import materials
from stm_models.physics.surface.cores import RINGS_BEGIN
from stm_models.physics.surface.field_recipe import GAIN_UNIT, FieldRecipe
from stm_models.physics.surface.friedel_recipe import Recipe
from stm_models.training.batches import Batches
from stm_models.training.preparing import prepare
from stm_models.training.synthetic_waves import occluded, smoothing, spots, targets, waves

__all__ = ["FieldGenerator", "Places", "SyntheticBatches"]

_PLAIN = Recipe()
_SET_POINT_WIDTH = 6.0  # px
_DARTS = 4  # for each position wanted
_FULL = 1.0  # circles with the smallest distance as radius, over the area: at half of what random packing reaches


@dataclass(frozen=True)
class Places:
    """Where things are: S samples, N impurities and D decoys at most.

    Attributes
    ----------
    positions : (S, N, 2), px
        y, x; impurities inside the frame first.
    inside, real : (S, N) bool
        Inside the frame; there at all.
    decoys : (S, D, 2), px
    shown : (S, D) bool
    """

    positions: Tensor
    inside: Tensor
    real: Tensor
    decoys: Tensor
    shown: Tensor


class FieldGenerator:
    """Draws batches of training fields.

    Parameters
    ----------
    recipe : FieldRecipe
    biases : sequence of float, V
    wave_numbers : sequence of float, rad/px
        Of the material at each bias; the true ones differ by the recipe's ``wave_number``.
    stripe_period : float or None, px
        Of the material's reconstruction.
    heat_width : float, px
    device : torch.device

    Raises
    ------
    InputError
        When so many impurities and decoys do not fit.
    """

    def __init__(
        self, recipe: FieldRecipe, biases: list[float], wave_numbers: list[float], *,
        stripe_period: float | None = None, heat_width: float = 0.8, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.recipe, self.stripe_period, self.heat_width = recipe, stripe_period, heat_width
        self.device = torch.device(device)
        self.biases = torch.tensor(biases, dtype=torch.float32, device=self.device)
        self.wave_numbers = torch.tensor(wave_numbers, dtype=torch.float32, device=self.device)
        self._ratio = (1 + 2 * recipe.margin / recipe.size) ** 2
        self._most = recipe.impurities[1] + recipe.decoys[1]
        self._most_outside = round(recipe.impurities[1] * (self._ratio - 1))
        if self._most * math.pi * recipe.minimum_distance**2 > _FULL * recipe.size**2:
            raise InputError(
                f"{self._most} impurities and decoys do not fit in {recipe.size} x {recipe.size} px at least "
                f"{recipe.minimum_distance:g} px apart: ask for fewer, a smaller distance or a larger field"
            )

    @classmethod
    def of(cls, parameters: Mapping[str, Any], device: torch.device | str = "cpu") -> FieldGenerator:
        """Build one from JSON values: recipe, biases (V), material, pixel_size (Å) and heat_width (px).

        Raises
        ------
        InputError
            For an unknown material, a value out of range, or pixels too coarse for the oscillation.
        """
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in parameters["recipe"].items()
        }
        recipe = FieldRecipe(**given)
        material = materials.create(parameters["material"])
        k = material.wave_number(parameters["biases"], parameters["pixel_size"])
        material.check_pixels(recipe.wave_number[1] * k, parameters["pixel_size"])
        period = material.stripe_period
        return cls(
            recipe, list(parameters["biases"]), k.tolist(), device=device,
            stripe_period=None if period is None else period / parameters["pixel_size"],
            heat_width=parameters.get("heat_width", 0.8),
        )  # fmt: skip

    def batch(self, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return prepared images (S, V, L, L) and targets (S, 2, L, L): heat, nearest pixels."""
        maps, places = self.maps(samples, generator)
        return prepare(maps), targets(places.positions, places.inside, self.recipe.size, self.heat_width)

    def maps(self, samples: int, generator: torch.Generator) -> tuple[Tensor, Places]:
        """Return raw maps (S, V, L, L), relative to the clean surface, and where the impurities are."""
        draw = _Draw(samples, generator, self.device)
        recipe, size = self.recipe, self.recipe.size
        places = self.places(samples, generator)
        field = self._waves(draw, places)
        strength = _strength(field, places)
        field = field * (draw.between(recipe.contrast) / strength.clamp_min(1e-12))[:, None, None, None]
        tip = smoothing(size, draw.between(recipe.tip), "nearest")[:, None]
        oscillation = _strength(_filtered(field, tip), places)[:, None, None, None]
        field = self._with_cores(draw, field, places, oscillation)
        maps = _filtered(1 + field, tip)
        maps = maps * (1 + draw.between(recipe.gain)[:, None] * self.biases / GAIN_UNIT)[..., None, None]
        maps = maps * self._background(draw) + self._plane(draw)
        return maps + oscillation * self._noise(draw), places

    def places(self, samples: int, generator: torch.Generator) -> Places:
        """Draw positions of impurities inside and around the frame, and of decoys."""
        recipe, size = self.recipe, self.recipe.size
        draw = _Draw(samples, generator, self.device)
        count = draw.whole(recipe.impurities)
        decoys = draw.whole(recipe.decoys)
        around = (count * (self._ratio - 1)).round()
        inner = draw.uniform(_DARTS * self._most, 2) * size - 0.5
        tries = math.ceil(_DARTS * self._most_outside * self._ratio / (self._ratio - 1)) if self._most_outside else 0
        outer = (draw.uniform(tries, 2) - 0.5) * (size + 2 * recipe.margin) + (size - 1) / 2
        out_of_frame = ((outer < -0.5) | (outer >= size - 0.5)).any(dim=2)
        first = _front(
            inner,
            _in_turn(inner, torch.ones_like(inner[..., 0], dtype=torch.bool), recipe.minimum_distance),
            self._most,
        )
        chosen = torch.arange(self._most, device=self.device) < (count + decoys)[:, None]
        taken = torch.where((chosen & first[1])[..., None], first[0], math.inf)
        free = (_apart(outer, taken) >= recipe.minimum_distance).all(dim=2)
        second = _front(outer, _in_turn(outer, out_of_frame & free, recipe.minimum_distance), self._most_outside)
        rank = torch.arange(recipe.impurities[1], device=self.device)
        inside = (rank < count[:, None]) & first[1][:, : recipe.impurities[1]]
        outside = (torch.arange(self._most_outside, device=self.device) < around[:, None]) & second[1]
        follow = (count[:, None] + torch.arange(recipe.decoys[1], device=self.device)).long()
        shown = (torch.arange(recipe.decoys[1], device=self.device) < decoys[:, None]) & first[1].gather(1, follow)
        return Places(
            torch.cat([first[0][:, : recipe.impurities[1]], second[0]], dim=1),
            torch.cat([inside, torch.zeros_like(outside)], dim=1),
            torch.cat([inside, outside], dim=1),
            first[0].gather(1, follow[..., None].expand(-1, -1, 2)),
            shown,
        )

    def _waves(self, draw: _Draw, places: Places) -> Tensor:
        recipe, count, biases = self.recipe, places.positions.shape[1], len(self.biases)
        offset = (self.biases - self.biases.mean())[:, None]
        low, high = _PLAIN.amplitude
        smooth_amplitude = draw.uniform(1, count) * (high - low) + low
        smooth_amplitude = smooth_amplitude * (1 + _PLAIN.amplitude_slope * draw.normal(1, count) * offset)
        smooth_phase = 2 * math.pi * draw.uniform(1, count) + 2 * recipe.phase_slope * draw.normal(1, count) * offset
        free_amplitude = draw.uniform(biases, count) * (high - low) + low
        free_phase = 2 * math.pi * draw.uniform(biases, count)
        chosen = {"smooth": 1.0, "independent": 0.0, "both": 0.5}[recipe.phases]
        smooth = draw.uniform(1, 1) < chosen
        amplitude = torch.where(smooth, smooth_amplitude, free_amplitude) * places.real[:, None]
        return waves(
            places.positions, amplitude, torch.where(smooth, smooth_phase, free_phase),
            draw.between(recipe.wave_number)[:, None] * self.wave_numbers, draw.between(recipe.exponent),
            recipe.size, _PLAIN.cutoff,
        )  # fmt: skip

    def _with_cores(self, draw: _Draw, field: Tensor, places: Places, oscillation: Tensor) -> Tensor:
        recipe, count = self.recipe, places.positions.shape[1]
        everything = torch.cat([places.positions, places.decoys], dim=1)
        there = torch.cat([places.real, places.shown], dim=1)
        total = everything.shape[1]
        radius = draw.between(recipe.occluded, count) * places.real
        height = draw.between(recipe.core, total) * draw.sign(total) * there
        slope = recipe.core_slope * draw.normal(total)
        heights = height[:, None] * (1 + slope[:, None] * self.biases[:, None])
        field = field.masked_fill(occluded(places.positions, radius, recipe.size)[:, None], 0.0)
        return field + oscillation * spots(everything, heights, draw.between(recipe.core_width, total), recipe.size)

    def _background(self, draw: _Draw) -> Tensor:
        """Set point and stripes: (S, 1, L, L)."""
        recipe, size = self.recipe, self.recipe.size
        matrix = smoothing(size, torch.full((1,), _SET_POINT_WIDTH, device=self.device), "wrap")
        deviation = matrix[0, size // 2].square().sum()
        smooth = _filtered(draw.normal(1, size, size), matrix[:, None]) / deviation
        result = 1 + draw.between(recipe.set_point)[:, None, None, None] * smooth
        if self.stripe_period is None:
            return result
        angle, phase = (2 * math.pi * draw.uniform(1, 1, 1) for _ in range(2))
        y, x = self._grid()
        wave = torch.cos(2 * math.pi / self.stripe_period * (angle.sin() * y + angle.cos() * x) + phase)
        return result * (1 + draw.between(recipe.stripes)[:, None, None, None] * wave)

    def _plane(self, draw: _Draw) -> Tensor:
        size = self.recipe.size
        angle = 2 * math.pi * draw.uniform(1, 1, 1)
        y, x = (part / (size - 1) - 0.5 for part in self._grid())
        return draw.between(self.recipe.plane)[:, None, None, None] * (angle.sin() * y + angle.cos() * x)

    def _noise(self, draw: _Draw) -> Tensor:
        """Independent from line to line, in units of the oscillation: (S, V, L, L)."""
        recipe, size, biases = self.recipe, self.recipe.size, len(self.biases)
        white = draw.between(recipe.white)[:, None, None, None]
        along = _one_over_f(draw.normal(biases, size, size), draw.between(recipe.power))
        total = (
            white * draw.normal(biases, size, size)
            + draw.between(recipe.one_over_f)[:, None, None, None] * along
            + draw.between(recipe.line)[:, None, None, None] * draw.normal(biases, size, 1)
        )
        total = total * (1 + recipe.uneven) ** (2 * draw.uniform(biases, 1, 1) - 1)
        hit = draw.uniform(biases, size, size) < draw.between(recipe.spikes)[:, None, None, None]
        spike = (20 * draw.uniform(biases, size, size) - 10) * white.clamp_min(0.3)
        return torch.where(hit, total + spike, total)

    def _grid(self) -> tuple[Tensor, Tensor]:
        pixel = torch.arange(self.recipe.size, dtype=torch.float32, device=self.device)
        return pixel[:, None], pixel[None, :]


class SyntheticBatches(Batches):
    """New fields in every batch.

    Parameters
    ----------
    parameters : mapping
        See `FieldGenerator.of`.
    count, batch_size : int
        Batches per epoch, and fields per batch.
    device : torch.device
    """

    def __init__(self, parameters: Mapping[str, Any], *, count: int, batch_size: int, device: torch.device) -> None:
        self.count, self._size, self._device = count, batch_size, device
        self._fields = FieldGenerator.of(parameters, device)

    def epoch(self, number: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (B, V, L, L), targets (B, 2, L, L)); ``generator`` alone decides what is drawn."""
        start = int(torch.randint(2**62, (1,), generator=generator))
        own = torch.Generator(self._device).manual_seed(start)
        for _ in range(self.count):
            yield self._fields.batch(self._size, own)


class _Draw:
    """Random numbers for a batch of samples, the first axis of everything drawn."""

    def __init__(self, samples: int, generator: torch.Generator, device: torch.device) -> None:
        self.samples, self.generator, self.device = samples, generator, device

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.samples, *shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.samples, *shape, generator=self.generator, device=self.device)

    def between(self, bounds: tuple[float, float], *shape: int) -> Tensor:
        return bounds[0] + (bounds[1] - bounds[0]) * self.uniform(*shape)

    def whole(self, bounds: tuple[int, int]) -> Tensor:
        return torch.randint(bounds[0], bounds[1] + 1, (self.samples,), generator=self.generator, device=self.device)

    def sign(self, *shape: int) -> Tensor:
        return torch.where(self.uniform(*shape) < 0.5, -1.0, 1.0)


def _in_turn(darts: Tensor, allowed: Tensor, distance: float) -> Tensor:
    """Keep of the allowed darts (S, D, 2), one after the other, those far enough from all kept before: (S, D) bool."""
    close = (_apart(darts, darts) < distance).tril(-1)
    kept, open_ = torch.zeros_like(allowed), allowed
    while open_.any():  # all at once that no open dart comes before
        open_ = open_ & ~(close & kept[:, None]).any(dim=2)
        now = open_ & ~(close & open_[:, None]).any(dim=2)
        kept, open_ = kept | now, open_ & ~now
    return kept


def _apart(first: Tensor, second: Tensor) -> Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _front(darts: Tensor, kept: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Move the kept darts (S, M) to the front: (S, most, 2) of them, and whether each is one."""
    order = kept.logical_not().to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    return darts.gather(1, order[..., None].expand(-1, -1, 2)), kept.gather(1, order)


def _filtered(maps: Tensor, matrix: Tensor) -> Tensor:
    """Smooth both axes of ``maps`` (S, V, L, L) with matrices (S or 1, 1, L, L)."""
    return matrix @ maps @ matrix.transpose(-2, -1)


def _strength(field: Tensor, places: Places) -> Tensor:
    """Standard deviation over the pixels away from impurities, root mean square over the biases: (S,)."""
    far = torch.where(places.real[..., None], places.positions, 1e6)
    near = occluded(far, torch.full_like(far[..., 0], RINGS_BEGIN), field.shape[-1])
    away = torch.where(near.all(dim=2).all(dim=1)[:, None, None], torch.ones_like(near), ~near)[:, None]
    count = away.sum(dim=(2, 3), keepdim=True)
    mean = (field * away).sum(dim=(2, 3), keepdim=True) / count
    variance = ((field - mean).square() * away).sum(dim=(2, 3)) / count[..., 0, 0]
    return variance.mean(dim=1).sqrt()


def _one_over_f(normal: Tensor, power: Tensor) -> Tensor:
    """Shape white noise (S, V, L, L) to a spectral density f^-power (S,) along its lines, with unit variance."""
    length = normal.shape[-1]
    frequency = torch.fft.rfftfreq(length, device=normal.device)
    response = torch.zeros(len(power), len(frequency), device=normal.device)
    response[:, 1:] = frequency[1:] ** (-power[:, None] / 2)
    twice = torch.full_like(frequency, 2.0)
    twice[0] = 1.0
    if length % 2 == 0:
        twice[-1] = 1.0
    response = response / ((twice * response.square()).sum(dim=1, keepdim=True) / length).sqrt()
    return torch.fft.irfft(torch.fft.rfft(normal) * response[:, None, None], length)
