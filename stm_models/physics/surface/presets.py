"""Fixed recipes of the pseudo-experiments: easy, hard, and each with what training has never seen.

The values were fixed before any training (docs/impurity.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from stm_models.errors import unknown
from stm_models.physics.surface.bound_state import BoundState

__all__ = ["PRESETS", "Preset", "Species", "create"]


@dataclass(frozen=True)
class Species:
    """One kind of impurity; (mean, standard deviation) of normal distributions.

    Attributes
    ----------
    phase : (float, float), rad
        delta at the Fermi energy.
    slope : (float, float), rad
        Change of delta over 250 mV.
    absorption : (float, float)
        a, cut to 0 to 1; 1 absorbs nothing.
    spot : (float, float)
        Height of the short-range part, in units of rho0 and of the preset's scale.
    """

    phase: tuple[float, float]
    slope: tuple[float, float]
    absorption: tuple[float, float]
    spot: tuple[float, float]


@dataclass(frozen=True)
class Preset:
    """Every value of a pseudo-experiment.

    Attributes
    ----------
    name : str
    impurities : (int, int)
        Fewest and most in a frame of 80 x 80 px; other frames hold as many per area.
    margin : float, px
        Impurities of the same density lie this far around the frame.
    minimum_distance : float, px
    species : (Species, Species)
    first_share : float
        Share of the first species.
    damping : float, px
        The scattered wave is multiplied by 1 - exp(-(r / damping)²) at each impurity.
    scale : float
        Of the short-range spots.
    spot_slope : float, 1/V
        Standard deviation of the spots' relative change with bias.
    spot_width : (float, float), px
        Uniform.
    core : "spot" or "ring"
        A ring is a spot minus one ``ring_ratio`` times as wide.
    ring_ratio : float
    decoys : int
        Spots without rings in a frame of 80 x 80 px.
    decoy : float
        Their height, either sign, times a uniform .7 to 1.3.
    decoy_width : float, px
    white, one_over_f, line : float
        Noise in units of the oscillation's rms.
    noise : "fast" or "slow"
        1/f along the lines and line offsets, or 1/f² across the lines with the same total and blurred white noise.
    noise_blur : float, px
        Of the white noise of "slow".
    drift : float, px
        Over the stack.
    tip : float, px
        Gaussian blur.
    gain : float
        Signal grows by this share over 250 mV.
    stripes, plane, set_point : float
        Relative strengths.
    set_point_width : float, px
    wave_number : float
        The true k relative to the material's.
    bound_state : BoundState
    """

    name: str
    impurities: tuple[int, int] = (40, 70)
    margin: float = 10.0
    minimum_distance: float = 4.0
    species: tuple[Species, Species] = (
        Species((-1.1, 0.25), (-0.8, 0.3), (0.35, 0.12), (0.5, 0.2)),
        Species((0.9, 0.25), (1.0, 0.3), (0.75, 0.12), (-0.6, 0.24)),
    )
    first_share: float = 0.7
    damping: float = 1.0
    scale: float = 0.6
    spot_slope: float = 1.5
    spot_width: tuple[float, float] = (0.7, 1.3)
    core: Literal["spot", "ring"] = "spot"
    ring_ratio: float = 1.6
    decoys: int = 0
    decoy: float = 0.35
    decoy_width: float = 1.1
    white: float = 0.5
    one_over_f: float = 0.35
    line: float = 0.35
    noise: Literal["fast", "slow"] = "fast"
    noise_blur: float = 0.7
    drift: float = 0.35
    tip: float = 0.5
    gain: float = 0.4
    stripes: float = 0.03
    plane: float = 0.08
    set_point: float = 0.04
    set_point_width: float = 6.0
    wave_number: float = 1.0
    bound_state: BoundState = field(default_factory=BoundState)


def _shifted(base: Preset) -> list[Preset]:
    return [
        base,
        replace(base, name=f"{base.name}+noise", noise="slow"),
        replace(base, name=f"{base.name}+core", core="ring"),
        replace(base, name=f"{base.name}+k", wave_number=1.05),
        replace(base, name=f"{base.name}+all", noise="slow", core="ring", wave_number=1.05),
        replace(base, name=f"{base.name}+bare", scale=0.0),
        replace(base, name=f"{base.name}+bright", scale=5 * base.scale),
    ]


_STD = Preset("std")
_HARD = replace(_STD, name="hard", scale=0.2, decoys=10, white=2.0, one_over_f=1.4, line=1.4, drift=0.7)

PRESETS: Mapping[str, Preset] = MappingProxyType({p.name: p for base in (_STD, _HARD) for p in _shifted(base)})
"""``std``, ``hard``, and each with ``+noise``, ``+core``, ``+k``, ``+all``.

Also ``+bare`` without spots and ``+bright`` with five times their height, which show what a detector looks for.
"""


def create(name: str) -> Preset:
    """Return a preset by its name.

    Raises
    ------
    InputError
        For an unknown name, with the choices.
    """
    if name not in PRESETS:
        raise unknown("pseudo-experiment", name, PRESETS)
    return PRESETS[name]
