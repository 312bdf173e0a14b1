"""What samples of Friedel oscillations look like: the paper's values, and variants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from stm_models.errors import InputError, unknown

__all__ = ["Recipe"]

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """What the samples look like. The defaults are the paper's; ranges are of uniform distributions.

    Attributes
    ----------
    size : int, px
        L.
    impurities : (int, int)
        Fewest and most, inside the frame.
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
    """

    size: int = 20
    impurities: tuple[int, int] = (1, 8)
    on_pixel: bool = True
    minimum_distance: float = 1.0
    exponent: Range = (2.0, 2.0)
    cutoff: float = 1.0
    amplitude: Range = (0.3, 1.0)
    phase: Literal["independent", "smooth"] = "independent"
    phase_slope: float = 6.0
    amplitude_slope: float = 1.0
    noise: Range = (0.8, 0.8)

    def __post_init__(self) -> None:
        if self.phase not in ("independent", "smooth"):
            raise unknown("phase", self.phase, ("independent", "smooth"))
        if self.size < 2:
            raise InputError(f"size is {self.size} px: expected at least 2")
        for name, least in (("impurities", 1), ("exponent", 0), ("noise", 0)):
            low, high = getattr(self, name)
            if not least <= low <= high < math.inf:
                raise InputError(f"{name} is {low} to {high}: expected a rising range that starts at {least} or above")
        if not 0 < self.cutoff < math.inf:
            raise InputError(f"cutoff is {self.cutoff} px: expected a positive length, 1 in the paper")
