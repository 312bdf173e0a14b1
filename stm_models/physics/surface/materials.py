"""Noble-metal (111) surface states: band bottom, effective mass, wave number at a bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.errors import InputError, unknown

__all__ = ["KINETIC", "MATERIALS", "Material", "create", "lifetime_broadening"]

Floats = NDArray[np.float64]

KINETIC = 3.80998
"""Half of hbar² over the free electron mass, in eV Å²."""


@dataclass(frozen=True)
class Material:
    """A parabolic two-dimensional band.

    Attributes
    ----------
    name : str
    band_bottom : float, eV
        E0 relative to the Fermi energy.
    mass : float
        Effective mass in free electron masses.
    source : str
    window : (float, float), V
        Usual range of biases for maps of the interference.
    stripe_period : float or None, Å
        Distance of the reconstruction's stripes, where the surface has them.
    """

    name: str
    band_bottom: float
    mass: float
    source: str
    window: tuple[float, float]
    stripe_period: float | None = None

    def wave_number(self, bias: ArrayLike, pixel_size: float = 1.0) -> Floats:
        """k(V) = sqrt((V - E0) m* / KINETIC), same shape as ``bias``, float64.

        Parameters
        ----------
        bias : array_like, V
        pixel_size : float, Å
            1 gives 1/Å; the size of a pixel gives rad/px.

        Raises
        ------
        InputError
            When a bias is not finite, lies at or below the band bottom, or the pixel size is not positive.
        """
        return np.sqrt(self._energy(bias) * self.mass / KINETIC) * _length(pixel_size)

    def complex_wave_number(
        self, bias: ArrayLike, broadening: ArrayLike | None = None, pixel_size: float = 1.0
    ) -> NDArray[np.complex128]:
        """k at the energy V + i Gamma/2: waves that die out with the lifetime.

        Parameters
        ----------
        bias : array_like, V
        broadening : array_like, eV, optional
            Gamma; default :func:`lifetime_broadening`.
        pixel_size : float, Å

        Raises
        ------
        InputError
            As :meth:`wave_number`, and for a broadening that is negative or not finite.
        """
        gamma = lifetime_broadening(bias) if broadening is None else np.asarray(broadening, np.float64)
        if not np.all(np.isfinite(gamma) & (gamma >= 0)):
            raise InputError(f"broadening is {gamma} eV: expected finite values of at least 0, e.g. 0.01")
        energy = self._energy(bias).astype(np.complex128) + 0.5j * gamma
        return np.asarray(np.sqrt(energy * self.mass / KINETIC) * _length(pixel_size), np.complex128)

    def check_pixels(self, wave_number: ArrayLike, pixel_size: float) -> None:
        """Refuse pixels too coarse for the oscillation, whose wave number is 2 k.

        Parameters
        ----------
        wave_number : array_like, rad/px
            k at each bias.
        pixel_size : float, Å

        Raises
        ------
        InputError
            When a period has no more than two pixels.
        """
        largest = float(np.max(wave_number))
        if 2 * largest >= np.pi:
            raise InputError(
                f"pixels of {pixel_size:g} Å are too coarse for the oscillation of {self.name}: "
                f"expected less than {pixel_size * np.pi / (2 * largest):.3g} Å at these biases"
            )

    def biases(self, count: int) -> Floats:
        """``count`` equidistant biases over the window, ends included: (count,) float64, V.

        Raises
        ------
        InputError
            For fewer than one.
        """
        if count < 1:
            raise InputError(f"number of biases is {count}: expected a whole number of at least 1")
        return np.linspace(*self.window, count)

    def _energy(self, bias: ArrayLike) -> Floats:
        values = np.asarray(bias, np.float64)
        if not np.all(np.isfinite(values)):
            raise InputError(
                f"bias is {values}: expected finite values in V, e.g. {self.window[0]} to {self.window[1]}"
            )
        if np.any(values <= self.band_bottom):
            lower = [m.name for m in MATERIALS.values() if m.band_bottom < values.min()]
            others = f", or a material whose band starts lower: {', '.join(lower)}" if lower else ""
            raise InputError(
                f"bias {values.min():g} V is at or below the band bottom of {self.name}, {self.band_bottom:g} eV, "
                "where no surface state exists: choose biases above it, usually "
                f"{self.window[0]:g} to {self.window[1]:g} V{others}"
            )
        return values - self.band_bottom


_PHOTOEMISSION = "photoemission: Reinert et al., PRB 63, 115415 (2001)"

MATERIALS: Mapping[str, Material] = MappingProxyType(
    {
        material.name: material
        for material in (
            Material("Au(111)", -0.52, 0.26, "tunnelling: arXiv:2006.15898, appendix", (-0.23, 0.02), 63.0),
            Material("Au(111) photoemission", -0.487, 0.255, _PHOTOEMISSION, (-0.23, 0.02), 63.0),
            Material("Ag(111)", -0.063, 0.397, _PHOTOEMISSION, (-0.06, 0.02)),
            Material("Cu(111)", -0.435, 0.412, _PHOTOEMISSION, (-0.23, 0.02)),
        )
    }
)
"""Every material by its name."""


def create(name: str) -> Material:
    """Return a material by its name.

    Raises
    ------
    InputError
        For an unknown name, with the choices.

    Examples
    --------
    >>> round(float(create("Au(111)").wave_number(0.0)), 3)
    0.188
    """
    if name not in MATERIALS:
        raise unknown("material", name, MATERIALS)
    return MATERIALS[name]


def lifetime_broadening(bias: ArrayLike) -> Floats:
    """Gamma in eV: 10 meV, and 30 meV (V / 0.52 V)² from electron-electron scattering; same shape as ``bias``."""
    return 0.010 + 0.030 * (np.asarray(bias, np.float64) / 0.52) ** 2


def _length(pixel_size: float) -> float:
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"pixel size is {pixel_size} Å: expected a positive length, e.g. 4.6875 (375 Å on 80 pixels)")
    return float(pixel_size)
