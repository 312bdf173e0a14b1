"""What an impurity data set is made of."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stm_models.config import Config
from stm_models.errors import InputError
from stm_models.physics.surface import materials
from stm_models.physics.surface.field_recipe import GAIN_UNIT, FieldRecipe
from stm_models.physics.surface.materials import Material
from stm_models.signal.bias_windows import BiasWindows

__all__ = ["ImpuritySimulation"]

_DEFAULT = FieldRecipe()
_FIELDS = ("mixed", "friedel", "scattering")  # generators of training fields
_WEAKEST = 0.1  # of the signal at 0 V
_FULLEST = 0.44  # of the frame under discs a minimum distance wide: random positions end at .547, and slow down before
_ROUNDING = 1e-9  # V


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= pair[0] <= pair[1]:
        raise ValueError(f"expected a range [low, high] that starts at 0 or above, got {list(pair)}")
    return pair


def _range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int | float | str) else value


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError("expected ascending biases in V, each once: they are the image's channels in this order")
    return values


Range = Annotated[tuple[float, float], BeforeValidator(_range), AfterValidator(_ordered)]
Count = Annotated[tuple[int, int], BeforeValidator(_range), AfterValidator(_ordered)]


class ImpuritySimulation(Config):
    """Stacks of dI/dV maps around impurities on a noble-metal surface; each field is one sample.

    Ranges are of uniform distributions and drawn anew for each field. ``experiment`` takes everything from its
    preset but material, biases and size; ``paper`` takes size, impurities and ``eta``.
    """

    generator: Literal["mixed", "friedel", "scattering", "paper", "experiment"] = Field(
        "mixed",
        description="friedel: independent waves and an instrument; scattering: multiple scattering and an instrument; "
        "mixed: both; paper: Eq. 3 of arXiv:2006.15898 and white noise; experiment: pseudo-experiments to judge by",
    )
    scattering_share: float = Field(0.75, ge=0, le=1, description="share of the mixed fields with multiple scattering")
    preset: Annotated[tuple[str, ...], BeforeValidator(_several)] = Field(
        ("std", "hard"), min_length=1, description="pseudo-experiments; fields take several in turn"
    )
    fields: int = Field(256, ge=1, le=1_000_000, description="number of fields")
    material: str = Field("Au(111)", description="surface; an unknown one is refused with those there are")
    biases: Annotated[tuple[float, ...], BeforeValidator(_several), AfterValidator(_ascending)] = Field(
        (-0.23, -0.194, -0.158, -0.123, -0.087, -0.051, -0.016, 0.02), max_length=126,
        description="biases of the image's channels, V",
    )  # fmt: skip
    dense_biases: int | None = Field(
        None, ge=2, le=1001,
        description="simulate so many biases over the same window and average them into the channels; 126 in the paper",
    )  # fmt: skip
    pixel_size: float = Field(4.6875, gt=0.1, le=50, description="Å; 375 Å on 80 pixels in the paper")
    size: int = Field(48, ge=8, le=512, description="pixels along a side")
    impurities: Count = Field(_DEFAULT.impurities, description="number inside the frame")
    margin: float = Field(_DEFAULT.margin, ge=0, le=100, description="px; impurities lie this far around it too")
    minimum_distance: float = Field(_DEFAULT.minimum_distance, ge=0, le=50, description="px, between impurities")
    eta: Range = Field((0.8, 0.8), description="of `paper`: white noise over the largest magnitude")
    exponent: Range = Field(_DEFAULT.exponent, description="p of Friedel waves: 2 in the paper, 1 for dI/dV")
    phases: Literal["smooth", "independent", "both"] = Field(
        _DEFAULT.phases, description="of Friedel waves: linear in the bias, drawn anew at each, or half of the fields"
    )
    phase_shift: Range = Field(_DEFAULT.phase_shift, description="magnitude of scatterers' delta, rad")
    absorption: Range = Field(_DEFAULT.absorption, description="a of scatterers; 1 absorbs nothing")
    phase_slope: float = Field(_DEFAULT.phase_slope, ge=0, le=100, description="of phases: standard deviation, rad/V")
    wave_number: Range = Field(_DEFAULT.wave_number, description="true k over the material's")
    broadening: Range = Field(_DEFAULT.broadening, description="factor on the lifetime broadening")
    contrast: Range = Field(_DEFAULT.contrast, description="rms of Friedel waves over the mean signal")
    occluded: Range = Field(_DEFAULT.occluded, description="px; radius of the core without waves")
    core: Range = Field(_DEFAULT.core, description="height of the arbitrary spots over the waves' rms, either sign")
    core_width: Range = Field(_DEFAULT.core_width, description="px; width of the spots")
    core_slope: float = Field(_DEFAULT.core_slope, ge=0, le=100, description="of spots: standard deviation, 1/V")
    decoys: Count = Field(_DEFAULT.decoys, description="spots without waves inside the frame")
    white: Range = Field(_DEFAULT.white, description="white noise over the waves' rms")
    one_over_f: Range = Field(_DEFAULT.one_over_f, description="noise correlated along the lines, over the waves' rms")
    line: Range = Field(_DEFAULT.line, description="offsets of lines over the waves' rms")
    power: Range = Field(_DEFAULT.power, description="the correlated noise has a spectral density f^-power")
    uneven: float = Field(_DEFAULT.uneven, ge=0, le=10, description="noise differs between biases by this share")
    spikes: Range = Field(_DEFAULT.spikes, description="share of pixels hit by a spike")
    drift: Range = Field(_DEFAULT.drift, description="px over the stack (scattering)")
    tip: Range = Field(_DEFAULT.tip, description="px; width of the tip")
    gain: Range = Field(_DEFAULT.gain, description="relative change of the signal over 250 mV")
    set_point: Range = Field(_DEFAULT.set_point, description="relative strength of the set-point's map")
    plane: Range = Field(_DEFAULT.plane, description="height of a plane over the field, relative")
    stripes: Range = Field(_DEFAULT.stripes, description="strength of the reconstruction's stripes, relative")
    keep_maps: bool = Field(False, description="store the raw maps beside the prepared images")
    seed: int = Field(0, ge=0, lt=2**63, description="of all that is drawn")

    @model_validator(mode="after")
    def _possible(self) -> ImpuritySimulation:
        from stm_models.physics.surface import presets  # numba, which a server has not

        try:
            for name in self.preset:
                presets.create(name)
            wave_number = self.surface.wave_number(self.simulated_biases, self.pixel_size)
            detuning = self.wave_number[1] if self.generator in _FIELDS else 1.0
            self.surface.check_pixels(detuning * wave_number, self.pixel_size)
            self.recipe()
        except InputError as error:
            raise ValueError(str(error)) from error
        if self.dense_biases is not None and len(self.biases) == 1:
            raise ValueError("dense_biases needs a window, from the first bias to the last: give at least two biases")
        self._fits()
        self._every_window_has_a_map()
        weakest = 1 + self.gain[1] * self.biases[0] / GAIN_UNIT
        if self.generator in _FIELDS and weakest < _WEAKEST:
            raise ValueError(
                f"a gain of {self.gain[1]:g} over {GAIN_UNIT:g} V leaves {weakest:.2g} of the signal at "
                f"{self.biases[0]:g} V: expected at least {_WEAKEST:g}; give a smaller simulate.gain"
            )
        return self

    def _fits(self) -> None:
        most = self.impurities[1] if self.generator == "paper" else self.impurities[1] + self.decoys[1]
        if self.generator == "paper" and most > self.size**2:
            raise ValueError(f"{most} impurities on {self.size} x {self.size} pixels: expected at most one on each")
        share = most * np.pi * self.minimum_distance**2 / 4 / self.size**2
        if self.generator in _FIELDS and share > _FULLEST:
            fit = int(_FULLEST / share * most)
            raise ValueError(
                f"{most} impurities and decoys do not fit in {self.size} x {self.size} px at least "
                f"{self.minimum_distance:g} px apart: expected at most {fit} of both together; or give a smaller "
                "simulate.minimum_distance or a larger simulate.size"
            )

    def _every_window_has_a_map(self) -> None:
        nearest = np.abs(self.simulated_biases[:, None] - self.biases).min(axis=0)
        half = self.windows.half_width
        if self.dense_biases is not None and nearest.max() > half + _ROUNDING:
            enough = int(np.ceil((self.biases[-1] - self.biases[0]) / (2 * half) - _ROUNDING)) + 1
            raise ValueError(
                f"of {self.dense_biases} dense_biases none lies within {half:.3g} V of the channel at "
                f"{self.biases[int(nearest.argmax())]:g} V: expected at least {enough}, e.g. 126 as in the paper"
            )

    @property
    def surface(self) -> Material:
        """The material."""
        return materials.create(self.material)

    @property
    def simulated_biases(self) -> NDArray[np.float64]:
        """Biases of the raw maps in V, (N,) float64."""
        if self.dense_biases is None:
            return np.asarray(self.biases, np.float64)
        return np.linspace(self.biases[0], self.biases[-1], self.dense_biases)

    @property
    def windows(self) -> BiasWindows:
        """Bias windows of the channels: half their smallest distance; one channel takes what lies within 20 mV."""
        steps = np.diff(self.biases) if len(self.biases) > 1 else np.array([0.02])
        return BiasWindows(self.biases, float(steps.min()) / 2, float(steps.max()))

    def recipe(self) -> FieldRecipe:
        """Return the recipe of a training field."""
        return FieldRecipe(**{field.name: getattr(self, field.name) for field in fields(FieldRecipe)})
