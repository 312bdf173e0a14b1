"""Figures of a moiré simulation: bands, densities of states, maps of the local density of states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["Bands", "bands", "densities_of_states", "ldos_maps"]

Floats = NDArray[Any]


@dataclass(frozen=True)
class Bands:
    """Bands of one state along a path.

    Attributes
    ----------
    title : str
    energies : tuple of (P, N) float64, eV
        From the chemical potential; one array, or one per spin (up, down).
    """

    title: str
    energies: tuple[Floats, ...]


def bands(states: Sequence[Bands], distance: Floats, ticks: dict[float, str], window: float) -> Figure:
    """Show the bands of some states side by side.

    Parameters
    ----------
    states : sequence of Bands
    distance : (P,) float64
        Along the path, 1/a.
    ticks : dict of float to str
        Names of the path's corners by their distance.
    window : float
        Shown are energies within this many eV of the chemical potential.
    """
    figure = Figure(figsize=(2.3 * len(states) + 0.7, 3.4), layout="constrained")
    panels = figure.subplots(1, len(states), sharey=True, squeeze=False)[0]
    for panel, state in zip(panels, states, strict=True):
        styles = [("-", "#1f4e8c", "up"), ("--", "#b5367a", "down")]
        for energies, (style, colour, spin) in zip(state.energies, styles, strict=False):
            near = energies[:, np.abs(energies).min(axis=0) <= window]
            lines = panel.plot(distance, near, style, color=colour, linewidth=0.9)
            if len(state.energies) > 1 and lines:
                lines[0].set_label(spin)
        for place in ticks:
            panel.axvline(place, color="0.8", linewidth=0.6, zorder=0)
        panel.axhline(0, color="0.4", linewidth=0.6, linestyle=":")
        panel.set_xticks(list(ticks), list(ticks.values()))
        panel.set(xlim=(distance[0], distance[-1]), ylim=(-window, window))
        panel.set_title(state.title, fontsize=9)
        panel.tick_params(labelsize=8)
    if any(len(state.energies) > 1 for state in states):
        panels[0].legend(fontsize=7)
    panels[0].set_ylabel("energy from the chemical potential (eV)", fontsize=8)
    return figure


def densities_of_states(
    names: Sequence[str], energy: Floats, density: Floats, *, broadening: float, potentials: Sequence[float]
) -> Figure:
    """Show the density of states of some states on one axis.

    Parameters
    ----------
    names : sequence of str
    energy : (E,) float64, eV
        From each state's chemical potential.
    density : (n, E) float64
        States per eV and moiré cell.
    broadening : float, eV
    potentials : sequence of float, eV
        Chemical potential of each state, said in the legend.
    """
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    panel = figure.subplots()
    shades = np.linspace(0.05, 0.85, len(names))
    for name, values, level, shade in zip(names, density, potentials, shades, strict=True):
        panel.plot(energy, values, linewidth=1, color=colormaps["plasma"](shade), label=f"{name}, μ = {level:.4g} eV")
    panel.axvline(0, color="0.4", linewidth=0.8, linestyle=":")
    panel.set(xlim=(energy[0], energy[-1]), ylim=(0, None))
    panel.set_xlabel("energy from the chemical potential μ (eV)", fontsize=8)
    panel.set_ylabel("states per eV and moiré cell", fontsize=8)
    panel.set_title(f"density of states, broadening {1000 * broadening:.3g} meV", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.legend(fontsize=7)
    return figure


def ldos_maps(titles: Sequence[str], points: Sequence[Floats], values: Sequence[Floats], *, label: str) -> Figure:
    """Show the LDOS of the imaged atoms of some states on one colour scale.

    Parameters
    ----------
    titles : sequence of str
    points : sequence of (M, 2) float64, nm
    values : sequence of (M,) floating
    label : str
        Of the values, with their unit.
    """
    figure = Figure(figsize=(2.9 * len(titles) + 0.9, 3.1), layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    reach = max(float(np.abs(p).max()) for p in points) * 1.03
    for panel, title, place, value in zip(panels, titles, points, values, strict=True):
        size = 2.5e4 / max(len(place), 1)
        drawn = panel.scatter(
            place[:, 0], place[:, 1], c=value, s=min(size, 40), cmap="inferno", vmin=low, vmax=high, linewidths=0
        )
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("x (nm)", fontsize=8)
        panel.tick_params(labelsize=7)
    panels[0].set_ylabel("y (nm)", fontsize=8)
    figure.colorbar(drawn, ax=list(panels), label=label, shrink=0.85)
    return figure
