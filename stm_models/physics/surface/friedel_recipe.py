"""What samples of Friedel oscillations look like: the paper's values, and the variants that train better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from stm_models.errors import InputError, unknown

__all__ = ["Recipe", "Spots"]

Range = tuple[float, float]


@dataclass(frozen=True)
class Spots:
    """Arbitrary Gaussian spots; what is written in brackets is the range of a uniform distribution.

    Attributes
    ----------
    amplitude : float
        Uniform between -amplitude and +amplitude, in units of the oscillation's rms.
    slope : float, 1/V
        Standard deviation of the relative change with bias.
    width : (float, float), px
    occluded : (float, float), px
        Radius within which the oscillation is removed (for spots on impurities).
    """

    amplitude: float = 4.0
    slope: float = 1.5
    width: Range = (0.6, 1.5)
    occluded: Range = (0.8, 1.6)


@dataclass(frozen=True)
class Recipe:
    """What the samples look like. The defaults are the paper's; ranges are of uniform distributions.

    Attributes
    ----------
    size : int, px
        L.
    impurities, outside : (int, int)
        Fewest and most inside the frame, and around it within ``margin`` px.
    on_pixel : bool
        Positions on pixel centres, as in the paper, or anywhere.
    minimum_distance : float, px
    exponent : (float, float)
        p of a sample.
    cutoff : float, px
        eps.
    amplitude : (float, float)
    phase : "independent" or "smooth"
        Amplitude and phase drawn anew at each bias, or changing linearly with it.
    phase_slope : float, rad/V
        Standard deviation, for smooth phases.
    amplitude_slope : float, 1/V
        Standard deviation of the relative change, for smooth phases.
    noise : (float, float)
        eta of a sample.
    cores : Spots or None
        Puts an arbitrary spot in the place of each impurity's core.
    decoys : (int, int)
        Fewest and most spots that have no oscillation.
    decoy : Spots
    """

    size: int = 20
    impurities: tuple[int, int] = (1, 8)
    outside: tuple[int, int] = (0, 0)
    margin: float = 10.0
    on_pixel: bool = True
    minimum_distance: float = 1.0
    exponent: Range = (2.0, 2.0)
    cutoff: float = 1.0
    amplitude: Range = (0.3, 1.0)
    phase: Literal["independent", "smooth"] = "independent"
    phase_slope: float = 6.0
    amplitude_slope: float = 1.0
    noise: Range = (0.8, 0.8)
    cores: Spots | None = None
    decoys: tuple[int, int] = (0, 0)
    decoy: Spots = field(default_factory=Spots)

    def __post_init__(self) -> None:
        if self.phase not in ("independent", "smooth"):
            raise unknown("phase", self.phase, ("independent", "smooth"))
        if self.size < 2:
            raise InputError(f"size is {self.size} px: expected at least 2")
        for name, least in (("impurities", 1), ("outside", 0), ("decoys", 0), ("exponent", 0), ("noise", 0)):
            low, high = getattr(self, name)
            if not least <= low <= high < math.inf:
                raise InputError(f"{name} is {low} to {high}: expected a rising range that starts at {least} or above")
        if not 0 < self.cutoff < math.inf:
            raise InputError(f"cutoff is {self.cutoff} px: expected a positive length, 1 in the paper")
