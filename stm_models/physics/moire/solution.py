"""What a branch of the mean field is told, what its state is made of, and what a self-consistent state is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.moire.hopping import HOPPING_RANGE

__all__ = ["Settings", "Solution", "StateArray"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What all branches are told alike.

    Attributes
    ----------
    k_count : int
        Mesh of k_count x k_count points.
    temperature : float
        kT in eV.
    dielectric : float or None
        Relative dielectric constant; None leaves the long-range Coulomb interaction out.
    gate_distance : float
        Distance of the two metallic gates in nm.
    fock_range : float
        In-plane reach of the exchange in a.
    interlayer_scale : float
        Factor on interlayer hopping.
    """

    k_count: int
    temperature: float
    dielectric: float | None
    gate_distance: float = 10.0
    fock_range: float = HOPPING_RANGE
    interlayer_scale: float = 1.0


@dataclass(frozen=True)
class StateArray:
    """One array of a branch's state: all that a warm start needs, float64."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    description: str


@dataclass(frozen=True)
class Solution:
    """A self-consistent state, or the last iterate of one that did not converge.

    Attributes
    ----------
    arrays : mapping of str to float64 array
        The state, as `Branch.state_arrays` describes it.
    energies : (blocks, N) float64, eV
        Mean-field bands.
    vectors : list of (N, N) float64 or complex128
        Eigenvectors in the branch's own basis, one array per block.
    chemical_potential, energy, free_energy : float, eV
        Energies are per moiré cell.
    iterations : int
        Of all attempts together.
    attempts : int
        1 where neither a retry with other mixing nor a way off a saddle was needed.
    residual : float
        Largest change of a density or bond order in the last iteration.
    converged : bool
    growth : float
        Leading eigenvalue of the self-consistency map along the directions that the cycle took: how a small change
        of the state grows from one plain iteration to the next. Above 1 the state is a saddle; 0 where the cycle was
        too short to say.
    """

    arrays: Mapping[str, Floats]
    energies: Floats
    vectors: list[Array]
    chemical_potential: float
    energy: float
    free_energy: float
    iterations: int
    attempts: int
    residual: float
    converged: bool
    growth: float = 0.0
