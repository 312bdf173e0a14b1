"""Where an AA region of a moiré lattice lies in a map: simulated images are of a disc about one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.signal.field import Field, turn

__all__ = ["about_aa"]

Array = NDArray[Any]

_CLEAR = 3.0
"""How much stronger the map has to be at the moiré vectors than between them."""
_NEAR = 0.25  # a: nearer to the middle than it can be told in a noisy map


def about_aa(
    field: Field, stack: Array, reciprocal: Sequence[Sequence[float]], envelope: float, radius: float
) -> Field | None:
    """Return the field about that AA region which leaves the most room for a disc; None where none is seen.

    Parameters
    ----------
    field : Field
        Where the values lie.
    stack : (channels, N) float64
        Maps of one field; the one that shows the moiré lattice best decides.
    reciprocal : (2, 2), 1/a
        The moiré lattice's reciprocal vectors as rows, as they lie once the field is turned.
    envelope, radius : float
        Of the model's disc; see `stm_models.signal.real_map.to_ft_image`.

    Notes
    -----
    Six-fold symmetry about an AA region makes the Fourier component of the LDOS at each moiré vector of the first star
    real there, positive or negative alike for all. Of three vectors that add up to nothing the product of components
    does not depend on where the origin is, so its sign is theirs, and their phases are the region's place. The map is
    taken for one without a moiré lattice where it is not clearly stronger there than between them, 30 degrees off.
    """
    star = _star(np.asarray(reciprocal, np.float64))
    radius = min(radius, field.room)
    weights = np.exp(-(field.distance**2) / (2 * (envelope * radius) ** 2)) * (field.distance <= radius)
    if not weights.any():  # no pixel as near to the middle as the disc reaches
        return None
    weights /= weights.sum()
    flat = (stack - (stack @ weights)[:, None]) * weights
    seen, between = (flat @ np.exp(-1j * field.positions @ vectors.T) for vectors in (star, star @ turn(30.0).T))
    clear = np.abs(seen).min(axis=1) / np.maximum(np.abs(between).max(axis=1), np.finfo(float).tiny)
    best = int(clear.argmax())
    if not clear[best] >= _CLEAR:
        return None
    product = seen[best].prod()
    phases = np.angle(seen[best] * np.sign(product.real))
    phases -= np.angle(np.exp(1j * phases.sum())) / 3  # what noise leaves of their sum
    place = np.linalg.solve(star[:2], -phases[:2])
    found = [field.about((float(x), float(y))) for x, y in _alike(place, star, field)]
    chosen = max(found, key=lambda one: one.room, default=field)
    return field if np.hypot(*chosen.middle) < _NEAR else chosen


def _star(reciprocal: Array) -> Array:
    """Return three vectors of the first star, 120 degrees apart."""
    first, second = reciprocal
    if first @ second > 0:
        second = second - first
    return np.stack([first, second, -first - second])


def _alike(place: Array, star: Array, field: Field) -> Array:
    """Return the places in the field, as scanned, that the lattice makes alike, of those next to its middle."""
    vectors = 2 * np.pi * np.linalg.inv(star[:2]).T
    fractions = place @ np.linalg.inv(vectors)
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 2), axis=-1).reshape(-1, 2)
    places = (fractions - fractions.round() + steps) @ vectors @ turn(-field.rotate).T
    inside: Array = places[(np.abs(places) <= np.asarray(field.half)[::-1]).all(axis=1)]
    return inside
