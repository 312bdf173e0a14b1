"""The named quantities of a hubbard data set."""

from __future__ import annotations

from typing import Any

from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.plan import Variable

__all__ = ["ORDER", "PARAMETERS", "SAMPLES", "SCALARS", "possible_targets"]

PARAMETERS = (
    Variable("U", "eV", "Hubbard interaction"),
    Variable("filling", "electrons per moiré cell", "filling beyond charge neutrality"),
    Variable("replicate", "1", "chain along U that the state belongs to"),
    Variable("index", "1", "commensurate index I of (I, I+1)"),
    Variable("layer_distance", "Å", "distance of the layers"),
    Variable("strain", "1", "uniaxial strain of both layers"),
    Variable("strain_angle", "degrees", "direction of the strain from x"),
    Variable("sites", "1", "atoms of the moiré cell; ldos is zero beyond"),
)
SAMPLES = (
    Variable("bias", "eV", "energy of the LDOS relative to the chemical potential; the channels' energies add to it"),
    Variable("broadening", "eV", "standard deviation of the LDOS Gaussian"),
)
ORDER = (
    Variable("charge_modulation", "electrons", "largest difference of the electron number between two sites"),
    Variable("gap", "eV", "lowest empty less highest full level on the k mesh, 0 for a metal"),
    Variable("net_moment", "mu_B per moiré cell", "magnitude of the summed moment"),
    Variable("staggered_moment", "mu_B per moiré cell", "summed moment with the sign of sublattice times layer"),
    Variable("sublattice_moment", "mu_B per moiré cell", "summed moment with the sign of the sublattice"),
    Variable("largest_moment", "mu_B", "largest moment of a site"),
    Variable("nematicity", "1", "anisotropy of the nearest-neighbour bond orders, 0 with a threefold axis"),
    Variable("bond_current", "1", "largest imaginary part of these bond orders, 0 where time reversal is kept"),
)
"""Order parameters of a solution, by their names in `stm_models.physics.moire.order.Order`."""
SCALARS = (
    Variable("converged", "1", "1 where the self-consistent cycle converged"),
    Variable("start", "1", "where the kept cycle began: place in the attribute 'starts'"),
    Variable("iterations", "1", "iterations of the self-consistent cycle, all candidates and attempts together"),
    Variable("attempts", "1", "attempts with different mixing, all candidates together"),
    Variable("residual", "1", "largest change of a density in the last iteration"),
    Variable("growth", "1", "how a small change of the state grows in one plain iteration; above 1 it is a saddle"),
    Variable("chemical_potential", "eV", "chemical potential"),
    Variable("energy", "eV per moiré cell", "mean-field energy"),
    Variable("free_energy", "eV per moiré cell", "energy minus temperature times entropy"),
    Variable("energy_spread", "eV per moiré cell", "highest less lowest free energy of the converged candidates"),
    *ORDER,
)


def possible_targets(config: HubbardSimulation) -> list[dict[str, Any]]:
    """Name what may be a label beside U: every quantity that differs between the states of this data set.

    Returns
    -------
    list of dict
        ``name``, ``unit`` and ``description`` of each.
    """
    strained = config.strain != (0, 0)
    lowered = config.branch != "sym"
    differs = {
        "filling": config.filling[0] < config.filling[1],
        "index": len(config.index) > 1,
        "layer_distance": config.layer_distance[0] < config.layer_distance[1],
        "strain": config.strain[0] < config.strain[1],
        "strain_angle": config.strain_angle[0] < config.strain_angle[1],
        "chemical_potential": True,
        "charge_modulation": True,
        "gap": True,
        "nematicity": strained or lowered,
        "bond_current": config.branch == "broken" and config.dielectric is not None,  # currents come with exchange
        **dict.fromkeys(
            ("net_moment", "staggered_moment", "sublattice_moment", "largest_moment"), config.branch == "collinear"
        ),
    }
    return [
        {"name": variable.name, "unit": variable.unit, "description": variable.description}
        for variable in (*PARAMETERS, *SCALARS)
        if differs.get(variable.name)
    ]
