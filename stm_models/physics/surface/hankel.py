"""The Hankel function H0 of the first kind along a ray k r, fast: Taylor pieces far away, the series near zero.

Bessel's equation gives every derivative of H0 from H0 and H1, so that one evaluation of both per piece is
enough; the pieces are short against the wavelength whatever k is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import hankel1

from stm_models.physics.compiled import compiled

__all__ = ["SHORTEST", "HankelTable", "tabulate", "waves"]

Floats = NDArray[np.float64]
Waves = NDArray[np.float64] | NDArray[np.float32]

SHORTEST = 1e-3
"""Distances below this, in pixels, count as this: the wave diverges at its scatterer."""
_NEAR = 2.0  # |k r| below which the power series is used
_STEP = 0.25  # length of a piece in |k r|
_DEGREE = 5
_TERMS = 10


@dataclass(frozen=True)
class HankelTable:
    """What :func:`waves` needs for one wave number.

    Attributes
    ----------
    wave_number : complex, rad/px
    start : float, px
        The pieces begin here.
    step : float, px
    pieces : (K, 12) float64
        Real Taylor coefficients about each piece's middle, then the imaginary ones.
    regular, logarithmic : (10, 2) float64
        H0 = regular(r²) + ln(r) logarithmic(r²) near zero; real and imaginary parts.
    """

    wave_number: complex
    start: float
    step: float
    pieces: Floats
    regular: Floats
    logarithmic: Floats


def tabulate(wave_number: complex, reach: float) -> HankelTable:
    """Prepare H0(k r) for 0 < r <= reach.

    Parameters
    ----------
    wave_number : complex, rad/px
        Re k > 0, Im k >= 0.
    reach : float, px

    Notes
    -----
    Error below 1e-7 of |H0|. DLMF 10.2, 10.8.2 (series), 10.6 (derivatives).
    """
    k = complex(wave_number)
    start, step = _NEAR / abs(k), _STEP / abs(k)
    count = max(1, math.ceil((reach - start) / step) + 1)
    z = k * (start + step * (np.arange(count) + 0.5))
    derivatives = np.empty((_DEGREE + 1, count), np.complex128)
    derivatives[0] = hankel1(0, z)
    derivatives[1] = -hankel1(1, z)
    for n in range(_DEGREE - 1):
        # The n-th derivative of z f'' + f' + z f = 0.
        lower = n * derivatives[n - 1] if n else 0.0
        derivatives[n + 2] = -((n + 1) * derivatives[n + 1] + z * derivatives[n] + lower) / z
    taylor = derivatives * np.array([k**n / math.factorial(n) for n in range(_DEGREE + 1)])[:, None]
    pieces = np.concatenate([taylor.real, taylor.imag]).T

    m = np.arange(_TERMS)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / m[1:])])
    bessel = (-((k / 2) ** 2)) ** m / np.array([math.factorial(n) for n in m], float) ** 2
    regular = bessel * (1 + 2j / math.pi * (np.log(k / 2) + np.euler_gamma - harmonic))
    logarithmic = 2j / math.pi * bessel
    return HankelTable(
        k,
        start,
        step,
        np.ascontiguousarray(pieces),
        np.stack([regular.real, regular.imag], axis=1),
        np.stack([logarithmic.real, logarithmic.imag], axis=1),
    )


def waves(table: HankelTable, points: Floats, scatterers: Floats, out: Waves | None = None) -> Waves:
    """H0(k |r_p - r_i|): real parts in the first N rows, imaginary parts in the last N.

    Parameters
    ----------
    table : HankelTable
        Its reach covers every distance.
    points : (P, 2) float64, px
    scatterers : (N, 2) float64, px
    out : (2 N, P) float64 or float32, optional

    Returns
    -------
    (2 N, P), float64 unless ``out`` is not
    """
    if out is None:
        out = np.empty((2 * len(scatterers), len(points)))
    y, x = np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
    _waves(y, x, scatterers, table.start, table.step, table.pieces, table.regular, table.logarithmic, out)
    return out


@compiled(fastmath=True)
def _waves(
    y: Floats,
    x: Floats,
    scatterers: Floats,
    start: float,
    step: float,
    pieces: Floats,
    regular: Floats,
    logarithmic: Floats,
    out: Waves,
) -> None:
    count = scatterers.shape[0]
    last = float(pieces.shape[0] - 1)
    inverse = 1.0 / step
    middle = start + 0.5 * step
    for i in range(count):
        yi, xi = scatterers[i, 0], scatterers[i, 1]
        for p in range(y.size):
            r = math.sqrt((y[p] - yi) ** 2 + (x[p] - xi) ** 2)
            # Unsigned, so that the compiler need not think of negative indices.
            j = np.uint64(min(max((r - start) * inverse, 0.0), last))
            d = r - (middle + np.float64(j) * step)
            out[i, p] = pieces[j, 0] + d * (
                pieces[j, 1] + d * (pieces[j, 2] + d * (pieces[j, 3] + d * (pieces[j, 4] + d * pieces[j, 5])))
            )
            out[count + i, p] = pieces[j, 6] + d * (
                pieces[j, 7] + d * (pieces[j, 8] + d * (pieces[j, 9] + d * (pieces[j, 10] + d * pieces[j, 11])))
            )
        # The few near points are done again; apart, so that the loop above has no branch.
        near = start * start
        for p in range(y.size):
            square = (y[p] - yi) ** 2 + (x[p] - xi) ** 2
            if square < near:
                square = max(square, SHORTEST * SHORTEST)
                logarithm = 0.5 * math.log(square)
                re, im = 0.0, 0.0
                for m in range(regular.shape[0] - 1, -1, -1):
                    re = re * square + regular[m, 0] + logarithm * logarithmic[m, 0]
                    im = im * square + regular[m, 1] + logarithm * logarithmic[m, 1]
                out[i, p] = re
                out[count + i, p] = im
