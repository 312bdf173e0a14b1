"""How alike the FT-LDOS images of different U are: draws docs/similarity.png and prints the numbers as JSON.

``python docs/similarity.py``, or ``make similarity``: a few minutes on one core. Images are of the neutral
cell at its chemical potential; alike is the cosine of two images brought to zero mean and unit variance. At I = 9
both states are shown: the one that continues the bare bands (a saddle) and the lowest.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.physics.moire import branches
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.physics.moire.lattice import build, patch
from stm_models.physics.moire.solution import Solution
from stm_models.tasks.inputs import Axes

INTERACTIONS = np.linspace(0.0, 6.0, 13)
GRID = KGrid(256)
PAPER = 0.9998
DENSE = 0.4  # of the disc's radius: standard deviation of the envelope


@dataclass(frozen=True)
class Case:
    """One structure and how it is looked at: the values of the presets quick and paper."""

    name: str
    colour: str
    leave_saddles: bool
    index: int
    distance: float
    temperature: float
    broadening: float
    radius: float


CASES = (
    Case("I=5", "#b5367a", True, 5, 2.74, 0.01, 0.03, 2.0),
    Case("I=9, lowest state", "#6aa84f", True, 9, 2.94, 0.005, 0.01, 1.5),
    Case("I=9", "#2a5d9f", False, 9, 2.94, 0.005, 0.01, 1.5),
)


class Chain:
    """Self-consistent states along U of one structure, each started from the one before."""

    def __init__(self, case: Case) -> None:
        self.case = case
        lattice = build(case.index, case.distance)
        self.branch = branches.create("sym", lattice, k_count=3, temperature=case.temperature, dielectric=10.0)
        self.ends: list[Solution] = []
        self.density: list[NDArray[Any]] = []
        start: Any = "bands"
        for interaction in INTERACTIONS:
            solution = self.branch.solve(interaction, 0.0, start, leave_saddles=case.leave_saddles)
            if not solution.converged:
                raise RuntimeError(f"{case.name}, U={interaction} did not converge: {solution.residual:.1e}")
            start = solution.arrays
            self.density.append(self.ldos(solution, case.broadening))
            if interaction in INTERACTIONS[[0, -1]]:
                self.ends.append(solution)
            print(f"{case.name} U={interaction:.1f}: {solution.iterations} iterations", file=sys.stderr)

    def ldos(self, solution: Solution, broadening: float) -> NDArray[Any]:
        """LDOS at the chemical potential, (N,)."""
        return self.branch.ldos(solution, np.zeros(1), np.array([broadening]))[0]

    def image(self, density: NDArray[Any], radius: float | None = None, grid: KGrid = GRID) -> NDArray[Any]:
        """FT-LDOS image of one LDOS on a disc of ``radius`` moiré lengths."""
        reach = (radius or self.case.radius) * float(np.linalg.norm(self.branch.lattice.vectors[0]))
        atoms, copies = patch(self.branch.lattice, reach)
        envelope = np.exp(-(atoms**2).sum(axis=1) / (2 * (DENSE * reach) ** 2))
        return image(atoms[:, 0], atoms[:, 1], density[copies] * envelope, grid).astype(float)


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Cosine of the angle between two images as they are."""
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Cosine of two standardised images."""
    return cosine(one - one.mean(), other - other.mean())


def variants(chain: Chain) -> dict[str, float]:
    """Similarity of U = 0 and U = 6 eV looked at in other ways."""
    first, last = chain.density[0], chain.density[-1]
    one, other = chain.image(first), chain.image(last)
    kx, ky = np.meshgrid(GRID.kx, GRID.ky)
    outside = np.hypot(kx, ky) > 2.0  # 1/a: beyond the peak at k = 0 and its moiré satellites
    found = {
        "as the figure": similarity(one, other),
        "cosine, not standardised": cosine(one, other),
        "without |k| < 2/a": similarity(one[outside], other[outside]),
        "log10(|F|/|F0| + 1e-4)": similarity(np.log10(one + 1e-4), np.log10(other + 1e-4)),
        "LDOS of the sites, no transform": cosine(first, last),
    }
    for n in (64, 128, 1003):
        found[f"{n} pixels"] = similarity(chain.image(first, grid=KGrid(n)), chain.image(last, grid=KGrid(n)))
    for radius in (1.0, 2.0, 3.0):
        found[f"disc of {radius:g} moiré lengths"] = similarity(*(chain.image(d, radius) for d in (first, last)))
    for factor in (0.5, 2.0):
        width = factor * chain.case.broadening
        found[f"broadening {width:g} eV"] = similarity(*(chain.image(chain.ldos(s, width)) for s in chain.ends))
    return found


def draw(curves: dict[str, list[float]], one: NDArray[Any], other: NDArray[Any], out: Path) -> None:
    """Curve, both images and their difference side by side."""
    figure = Figure(figsize=(11.0, 2.9), layout="constrained")
    curve, left, middle, right = figure.subplots(1, 4, width_ratios=[1.15, 1, 1, 1])
    for case in CASES:
        unlike = 1 - np.array(curves[case.name][1:])
        curve.semilogy(INTERACTIONS[1:], unlike, ".-", color=case.colour, label=case.name)
    curve.axhline(1 - PAPER, color="0.5", linestyle="--", linewidth=1)
    curve.text(6.1, (1 - PAPER) * 1.15, "99.98 %", color="0.4", fontsize=8, ha="right")
    curve.set(xlim=(0, 6.2), xlabel="U (eV)", ylabel="1 - similarity to U = 0")
    curve.legend(fontsize=8, loc="lower right")
    extent = Axes.of_centres(GRID.kx_max, GRID.ky_max, (GRID.n, GRID.n), ("kx", "ky")).extent
    for axis, picture, title in ((left, one, "I = 9, U = 0"), (middle, other, "I = 9, U = 6 eV")):
        shown = np.log10(np.maximum(picture, 1e-6))
        drawn = axis.imshow(shown, origin="lower", extent=extent, cmap="magma", vmin=-5, vmax=0)
        axis.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=middle, label="log10 |F|/|F(0)|", shrink=0.8)
    change = other - one
    limit = float(np.abs(change).max())
    drawn = right.imshow(change, origin="lower", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit)
    right.set_title("difference", fontsize=10)
    figure.colorbar(drawn, ax=right, label="|F|/|F(0)|", shrink=0.8)
    for axis in (left, middle, right):
        axis.set_xlabel("kx (1/a)")
    left.set_ylabel("ky (1/a)")
    figure.savefig(out, dpi=88)


def main(out: Path) -> None:
    """Solve both chains, draw the figure, print the numbers."""
    curves, other_ways = {}, {}
    for case in CASES:
        chain = Chain(case)
        made = [chain.image(density) for density in chain.density]
        curves[case.name] = [similarity(made[0], picture) for picture in made]
        other_ways[case.name] = {name: round(value, 6) for name, value in variants(chain).items()}
    draw(curves, made[0], made[-1], out)
    result = {
        "U": INTERACTIONS.tolist(),
        "similarity": {name: [round(value, 6) for value in values] for name, values in curves.items()},
        "U=0 against U=6": other_ways,
        "paper": PAPER,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(Path(__file__).with_name("similarity.png"))
