"""Local density of states of a mean-field solution."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.mean_field import MeanField, Solution
from stm_models.physics.moire.real_form import site_density

__all__ = ["ldos"]

Floats = NDArray[np.float64]


def ldos(field: MeanField, solution: Solution, bias: Floats, broadening: Floats) -> Floats:
    """Spin-summed LDOS at some energies about the chemical potential.

    ldos_i(E) = 2 sum_k w_k sum_m |psi_i|² g((e_m - mu - E)/eta)/eta with a normalised Gaussian g.

    Parameters
    ----------
    field : MeanField
    solution : Solution
    bias : (T,) float64, eV
        Energies E relative to the chemical potential.
    broadening : (T,) float64, eV
        Standard deviations eta.

    Returns
    -------
    (T, N) float64, states/eV per site
    """
    classes = np.zeros((len(bias), len(field.sites.size)))
    for energies, vectors, weight in zip(solution.energies, solution.vectors, field.mesh.weights, strict=True):
        apart = (energies[:, None] - solution.chemical_potential - bias) / broadening
        near = np.flatnonzero(np.abs(apart).min(axis=1) < 9)
        peak = np.exp(-0.5 * apart[near] ** 2) / (math.sqrt(2 * math.pi) * broadening)
        density = 2 * weight * site_density(vectors[:, near], peak)
        for index in range(len(bias)):
            classes[index] += field.class_mean(density[:, index])
    return field.site_values(classes)
