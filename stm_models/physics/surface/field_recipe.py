"""What the fields look like that networks are trained on: ranges of uniform distributions, wide on purpose.

No noise here is correlated across the lines of the scan: that is kept for the shifted pseudo-experiments, on
which a network meets noise of a kind it has never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stm_models.errors import InputError, unknown

__all__ = ["GAIN_UNIT", "WAVES", "FieldRecipe"]

Range = tuple[float, float]
GAIN_UNIT = 0.25
"""V; the signal's relative change over it is ``gain``."""
WAVES = ("friedel", "scattering")
"""Sums of independent waves (Eq. 3 of arXiv:2006.15898), or multiple scattering."""


@dataclass(frozen=True)
class FieldRecipe:
    """One field's distributions; a pair is (lowest, highest) unless it says otherwise.

    Attributes
    ----------
    size : int, px
        L.
    impurities : (int, int)
        Inside the frame; around it, within ``margin``, lie as many per area.
    margin : float, px
    minimum_distance : float, px
    exponent : range
        p of Friedel waves: 2 for the integrated density, 1 for dI/dV.
    phases : "smooth", "independent" or "both"
        Of Friedel waves: linear in the bias, drawn anew at each bias, or either, half of the fields each.
    phase_shift, absorption : range
        \\|delta\\| in rad, either sign, and a, of scatterers.
    phase_slope : float, rad/V
        Standard deviation.
    wave_number : range
        True k over the material's: masses and band bottoms are known to a few per cent.
    broadening : range
        Factor on the lifetime broadening.
    contrast : range
        rms of Friedel waves relative to the mean signal; multiple scattering brings its own.
    occluded : range, px
        Radius about each impurity in which the waves are taken away: what is there is not universal.
    core : range
        Height of the Gaussian spot put there instead, either sign, in units of the waves' rms.
    core_width : range, px
    core_slope : float, 1/V
        Standard deviation of the spots' relative change with bias.
    decoys : (int, int)
        Spots without waves, drawn from ``core`` and ``core_width`` too.
    white, one_over_f, line : range
        Standard deviations over the waves' rms: white noise, noise correlated along a line, offsets of lines.
    power : range
        The correlated noise has a spectral density f^-power along the line.
    uneven : float
        Noise differs between biases by a factor of up to 1 + uneven, or 1 over it.
    spikes : range
        Share of pixels that a spike hits; it is up to ten times the noise.
    drift, tip : range, px
        Over the stack, and width of the tip.
    gain, set_point, plane, stripes : range
        Relative strengths, as in the pseudo-experiments.
    """

    size: int = 48
    impurities: tuple[int, int] = (10, 28)
    margin: float = 10.0
    minimum_distance: float = 3.0
    exponent: Range = (1.0, 2.0)
    phases: Literal["smooth", "independent", "both"] = "smooth"
    phase_shift: Range = (0.5, 1.57)
    absorption: Range = (0.2, 0.95)
    phase_slope: float = 4.0
    wave_number: Range = (0.96, 1.04)
    broadening: Range = (0.5, 2.0)
    contrast: Range = (0.03, 0.12)
    occluded: Range = (0.8, 1.6)
    core: Range = (0.0, 5.0)
    core_width: Range = (0.6, 1.5)
    core_slope: float = 1.5
    decoys: tuple[int, int] = (0, 8)
    white: Range = (0.3, 2.5)
    one_over_f: Range = (0.0, 2.2)
    line: Range = (0.0, 2.2)
    power: Range = (0.0, 2.0)
    uneven: float = 0.3
    spikes: Range = (0.0, 0.003)
    drift: Range = (0.0, 0.8)
    tip: Range = (0.3, 0.7)
    gain: Range = (0.0, 0.6)
    set_point: Range = (0.0, 0.06)
    plane: Range = (0.0, 0.1)
    stripes: Range = (0.0, 0.04)

    def __post_init__(self) -> None:
        if self.phases not in ("smooth", "independent", "both"):
            raise unknown("phases", self.phases, ("smooth", "independent", "both"))
        if self.size < 8:
            raise InputError(f"size is {self.size} px: expected at least 8")
        if self.impurities[0] < 1:
            raise InputError(f"impurities is {self.impurities}: expected at least 1")
        if self.core_width[0] == 0:
            raise InputError(f"core_width is {self.core_width}: expected widths above 0 px, e.g. 0.6 to 1.5")
        if self.spikes[1] > 1:
            raise InputError(f"spikes is {self.spikes}: expected shares of the pixels, at most 1, e.g. 0 to 0.003")
        if self.absorption[1] > 1:
            raise InputError(f"absorption is {self.absorption}: expected at most 1, which absorbs nothing")
        for name, value in vars(self).items():
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise InputError(
                    f"{name} is {value[0]} to {value[1]}: expected a rising range that starts at 0 or above"
                )
