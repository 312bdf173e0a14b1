"""Filling bands with electrons: chemical potential and entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp, xlogy

from stm_models.errors import InputError

__all__ = ["chemical_potential", "entropy"]

Floats = NDArray[np.float64]
_FLAT = 1e-6  # electrons per eV: of fewer, the count says nothing about the level


def chemical_potential(energies: Floats, weights: Floats, count: float, temperature: float) -> float:
    """Level at which the bands hold ``count`` electrons, to 1e-12; in a gap, that of thermal equilibrium.

    Parameters
    ----------
    energies : (blocks, M) float64, eV
        One block per k point, and per spin where the spins differ.
    weights : (blocks,) float64
        They sum to 1; a full block of weight 1 holds 2 M electrons.
    count : float
    temperature : float
        kT in eV.

    Returns
    -------
    float, eV

    Raises
    ------
    InputError
        When the bands cannot hold that many electrons.
    """
    room = 2 * energies.shape[1]
    if not 0 < count < room:
        raise InputError(
            f"cannot place {count:g} electrons in {room // 2} bands: expected above 0 and below {room}; "
            "bring the filling nearer to 0"
        )

    def excess(level: float) -> float:
        return 2 * float(weights @ expit((level - energies) / temperature).sum(axis=1)) - count

    margin = 60 * temperature
    level = float(brentq(excess, energies.min() - margin, energies.max() + margin, xtol=1e-14, rtol=1e-15))
    occupation = expit((level - energies) / temperature)
    if 2 * weights @ (occupation * (1 - occupation)).sum(axis=1) / temperature > _FLAT:
        return level
    return _equilibrium(energies, weights, level, temperature)


def _equilibrium(energies: Floats, weights: Floats, inside: float, temperature: float) -> float:
    """Level in the gap around ``inside`` with as many electrons above it as holes below, however few they are."""
    filled = energies < inside

    def surplus(level: float) -> float:
        electrons = logsumexp(log_expit((level - energies) / temperature), b=weights[:, None] * ~filled)
        holes = logsumexp(log_expit((energies - level) / temperature), b=weights[:, None] * filled)
        return float(electrons - holes)

    return float(brentq(surplus, energies[filled].max(), energies[~filled].min(), xtol=1e-14, rtol=1e-15))


def entropy(occupation: Floats, weights: Floats) -> float:
    """Entropy over the Boltzmann constant: -2 sum w [f ln f + (1 - f) ln(1 - f)].

    Parameters
    ----------
    occupation : (blocks, M) float64
    weights : (blocks,) float64
        As in `chemical_potential`.
    """
    disorder = xlogy(occupation, occupation) + xlogy(1 - occupation, 1 - occupation)
    return -2 * float(weights @ disorder.sum(axis=1))
