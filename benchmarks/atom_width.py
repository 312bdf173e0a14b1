"""What a model makes of rasters of atoms, and what it costs not to know how wide these are.

The model is that of `interval_coverage.py` (with the same --keep the very one). Fresh states are painted as
noise-free maps of Gaussian atoms on a lattice larger than the model's disc, in pixels of half an ångström, and prepared
as `stm predict` does, told the atoms' width, a wrong one, or none (``--atom-width 0``). Errors are root mean squares in
eV, of the states' own images and by what was told; a ratio is how many times larger the error is with none told. The
detail has what share of the states lies within its bounds and what share is called unlike the training data.

Example: python benchmarks/atom_width.py --keep build/coverage --json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from _timing import report
from _trusted import arguments, asked, trusted
from numpy.typing import NDArray

from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import Samples, load
from stm_models.physics.raster import rasterise
from stm_models.tasks.base import Task
from stm_models.tasks.hubbard.imaging import ATOM_WIDTH, NM, PIXEL
from stm_models.tasks.hubbard.structure import imaged_atoms
from stm_models.tasks.inputs import RawMap
from stm_models.tasks.verdict import UNUSUAL

SEED = 3_412_907
TOLD = (0.0, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5)
"""Widths that the model is told, of the atoms' own."""
_BEYOND = 4.0  # a: so far the lattice goes on beyond the model's disc


def main() -> None:
    """Measure and print."""
    args = arguments(__doc__, "fresh states (default: 48, 12 with --quick)")
    states = args.states or (12 if args.quick else 48)
    with trusted(args) as (folder, chosen, known):
        fresh = folder / f"{chosen.preset}-widths.zarr"
        config = chosen.task.fresh(chosen.simulate, SEED, states, unseen=True)
        simulate(chosen.task, config, fresh, workers=args.workers)
        samples = load(fresh, arrays=("ldos",))
        images = {"image": samples.images}
        for told in TOLD:
            images[f"told_{told:g}"] = np.stack(
                [prepared_map(chosen.task, samples, row, told) for row in range(len(samples))]
            )
        answers = {name: asked(known, one.astype(np.float32)) for name, one in images.items()}
    off = {name: found["prediction"] - samples.targets for name, found in answers.items()}
    errors = {name: float(np.sqrt(np.mean(one**2))) for name, one in off.items()}
    detail = {
        name: {
            "largest": float(np.abs(one).max()), "mean": float(one.mean()),
            "outside": float(np.mean(answers[name]["novelty"] < UNUSUAL)), "held": held(answers[name], samples.targets),
            "image": float(np.abs(images[name] - samples.images).max()),
        }
        for name, one in off.items()
    }  # fmt: skip
    ratios = {"none_told": errors["told_0"] / errors["told_1"]}
    about = {"trained_on": chosen.train.perturbation, "states": len(samples), "by": detail}
    report("atom_width", ratios, errors, about, as_json=args.json)


def held(answers: Mapping[str, Any], truth: NDArray[Any]) -> float:
    """Return the share of truths within their bounds."""
    return float(np.mean((answers["lower"] <= truth) & (truth <= answers["upper"])))


def prepared_map(task: Task, samples: Samples, row: int, told: float) -> NDArray[Any]:
    """Paint the state of a sample and make the model's image of it, told ``told`` times its atoms' width."""
    spec, size = samples.attributes["input"], 2 * (samples.attributes["input"]["radius"] + _BEYOND)
    state = {name: values[row] for name, values in samples.coordinates.items()}
    atoms = imaged_atoms(_wider(samples.attributes), state)
    values = samples.arrays["ldos"][row][:, atoms.copies] * atoms.layer_weight
    pixels = math.ceil(size * NM / PIXEL)
    painted = rasterise(atoms.positions, values, side=size, pixels=pixels, width=ATOM_WIDTH)
    bias = np.asarray(spec["energies"], np.float64)
    raw = RawMap(painted, (size * NM, size * NM), bias, f"sample {row}", atom_width=told * ATOM_WIDTH * NM)
    return task.prepare(raw, spec).image


def _wider(attributes: Mapping[str, Any]) -> dict[str, Any]:
    config, radius = attributes["config"], attributes["input"]["radius"]
    return {**attributes, "config": {**config, "patch_radius": config["patch_radius"] * (radius + _BEYOND) / radius}}


if __name__ == "__main__":
    main()
