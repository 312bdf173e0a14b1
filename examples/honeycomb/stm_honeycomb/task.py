"""The task honeycomb: the staggered moment of an antiferromagnet from images of a spin-polarised tip.

Mean-field Hubbard model on the honeycomb lattice at half filling, hopping t = 1 and lattice constant a = 1. The two
sublattices see the exchange fields +D and -D, the bands are +-E(k) with E^2 = |f|^2 + D^2, and the moment is
m = <D / E> = 2 D / U. Below U = 2.23 t there is none (Sorella and Tosatti, Europhys. Lett. 19, 699 (1992)).
"""

from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from stm_models.config import Config
from stm_models.errors import InputError
from stm_models.tasks.inputs import Axes, Prepared
from stm_models.tasks.plan import ArraySpec, Group, GroupResult, Plan, Variable
from stm_models.tasks.regression import RegressionTask

PIXEL, ATOM = 0.125, 0.22  # of an image, and the width of an atom in it; a
PHASES = np.exp(2j * np.pi * (np.arange(48) + 0.5) / 48)  # of the Brillouin zone, beside its points of high symmetry
BAND = np.abs(1 + PHASES + PHASES[:, None]).ravel()  # |f|, t
CELLS = (np.arange(-8, 9) + np.arange(-8, 9)[:, None] * (0.5 + 0.75**0.5 * 1j)).ravel()
SHAPE = ("channels", "height", "width")
MOMENT = Variable("moment", "µB", "staggered magnetic moment of an atom")


class Honeycomb(Config):
    """States at a grid of moments, or at random ones, each seen by several tips at several places."""

    moment: tuple[float, float] = (0.1, 0.8)
    moments: int = 15
    continuous: bool = False
    replicates: int = 2
    draws: int = 6
    energies: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)  # t
    size: int = 24  # px
    noise: float = 0.1  # of the mean
    seed: int = 0


def field(moment):
    """Exchange field D (t) of a state with this moment."""
    return float(brentq(lambda d: np.mean(d / np.hypot(BAND, d)) - moment, 0, 1000))


def image(config, d, width, polarisation, rng):
    """LDOS (energy, y, x) over its mean, ``width`` broad, of the lattice turned and shifted at random."""
    band, energies = np.hypot(BAND, d), np.array(config.energies)[:, None]
    lower, upper = (np.exp(-(((energies + sign * band) / width) ** 2) / 2) for sign in (1, -1))
    total, staggered = (lower + upper).mean(1), ((lower - upper) * polarisation * d / band).mean(1)
    turn, origin = np.exp(1j * rng.uniform(0, 2 * np.pi)), complex(*rng.uniform(-1, 1, 2))
    pixels = (np.arange(config.size) - config.size / 2) * PIXEL
    offset = (pixels + 1j * pixels[:, None])[..., None] - origin - turn * CELLS
    a, b = (np.exp(-(np.abs(offset - turn * by) ** 2) / ATOM**2 / 2).sum(2) for by in (0, 1j / 3**0.5))
    shown = np.multiply.outer(total + staggered, a) + np.multiply.outer(total - staggered, b)
    return shown / shown.mean() + rng.normal(0, config.noise, shown.shape)


def simulate(config, group, state):
    """Solve for the exchange field, then draw the images; no state depends on another."""
    rng = np.random.default_rng([config.seed, group.index, 1])
    m, width = group.parameters["moment"], group.parameters["width"]
    shown = [image(config, field(m), width, tip, rng) for tip in group.samples["polarisation"]]
    return GroupResult({"image": np.array(shown, np.float32)}, {}, {"converged": 1.0, "U": 2 * field(m) / m})


class HoneycombTask(RegressionTask):
    """Spin-polarised LDOS images in, staggered moment out."""

    name, title = "honeycomb", "Staggered moment of a honeycomb antiferromagnet"
    targets, stratify, default_network, simulation = (MOMENT,), "moment", "contrast", Honeycomb
    presets = Path(__file__).parent / "presets"

    def plan(self, config):
        """One group is one state; its samples differ in the tip and the place."""
        rng, shape = np.random.default_rng(config.seed), (len(config.energies), config.size, config.size)
        grid = np.tile(np.linspace(*config.moment, config.moments), config.replicates)
        moments = rng.uniform(*config.moment, len(grid)) if config.continuous else grid
        known = [{"moment": float(m), "width": rng.uniform(0.2, 0.4)} for m in moments]
        tips = [{"polarisation": rng.uniform(0.3, 0.5, config.draws)} for _ in moments]
        about = {"kind": "sp_ldos", "dims": ["channel", "y", "x"], "unit": "1", **dict(zip(SHAPE, shape, strict=True))}
        return Plan(
            chains=tuple((Group(i, *both),) for i, both in enumerate(zip(known, tips, strict=True))),
            samples_per_group=config.draws,
            arrays={"image": ArraySpec(("channel", "y", "x"), shape, "float32", "1", "LDOS over its mean")},
            state={},
            parameters=(MOMENT, Variable("width", "t", "broadening of the LDOS")),
            samples=(Variable("polarisation", "1", "of the tip"),),
            scalars=(Variable("converged", "1", "always"), Variable("U", "t", "Hubbard interaction")),
            attributes={"simulator_version": "1", "input": about},
        )

    def simulator(self, config, *, device="cpu"):
        """Simulate one group after another."""
        return partial(simulate, config)

    def fresh(self, config, seed, states, *, unseen):
        """Other states, at random moments or at those of ``config``."""
        new = {"moments": states, "replicates": 1} if unseen else {"replicates": max(1, round(states / config.moments))}
        return config.model_copy(update={"seed": seed, "draws": 1, "continuous": unseen, **new})

    def prepare(self, raw, input_spec):
        """Take maps at the model's energies and of its pixels, over their mean."""
        if raw.values.shape != (shape := tuple(input_spec[name] for name in SHAPE)):
            raise InputError(f"{raw.source} has shape {raw.values.shape}: expected {shape}, (energy, y, x)")
        return Prepared(np.float32(raw.values / raw.values.mean()), np.ones(shape[1:], bool))

    def axes(self, input_spec):
        """Lattice constants."""
        return Axes((0, input_spec["width"] * PIXEL, 0, input_spec["height"] * PIXEL), ("x (a)", "y (a)"))
