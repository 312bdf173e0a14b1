"""What a model makes of rasters of atoms, and what it costs not to know how wide these are, or where AA regions lie.

The model is that of `interval_coverage.py` (with the same --keep the very one). Fresh states are painted as
noise-free maps of Gaussian atoms on a lattice larger than the model's disc, in pixels of half an ångström, and prepared
as `stm predict` does, told the atoms' width, a wrong one, or none (``--atom-width 0``). Errors are root mean squares in
eV, of the states' own images and by what was told; a ratio is how many times larger the error is with none told. An AA
region lies in the middle of these maps. In two more sets the middle lies anywhere in the moiré cell, and the disc is
laid about the nearest AA region (``anywhere``) or left in the map's middle (``not_looked_for``; the ratio is
``middle``). The detail has what share of the states lies within its bounds and what share is called unlike the training
data.

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
from stm_models.tasks.hubbard.structure import imaged_atoms, structure
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
        for name, looked_for in (("anywhere", True), ("not_looked_for", False)):
            middles = np.random.default_rng(SEED).uniform(-0.5, 0.5, (len(samples), 2))
            images[name] = np.stack(
                [
                    prepared_map(chosen.task, samples, row, 1.0, middle=middle, looked_for=looked_for)
                    for row, middle in enumerate(middles)
                ]
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
    ratios = {
        "none_told": errors["told_0"] / errors["told_1"],
        "middle": errors["not_looked_for"] / errors["anywhere"],
    }
    about = {"trained_on": chosen.train.perturbation, "states": len(samples), "by": detail}
    report("atom_width", ratios, errors, about, as_json=args.json)


def held(answers: Mapping[str, Any], truth: NDArray[Any]) -> float:
    """Return the share of truths within their bounds."""
    return float(np.mean((answers["lower"] <= truth) & (truth <= answers["upper"])))


def prepared_map(
    task: Task,
    samples: Samples,
    row: int,
    told: float,
    *,
    middle: NDArray[Any] | None = None,
    looked_for: bool = True,
) -> NDArray[Any]:
    """Paint the state of a sample and make the model's image of it.

    Parameters
    ----------
    told : float
        Which width the model is told, of the atoms' own.
    middle : (2,), optional
        Where the map's middle lies from an AA region, in moiré lattice vectors; by default in it.
    looked_for : bool
        Whether the disc is laid about an AA region.
    """
    state = {name: values[row] for name, values in samples.coordinates.items()}
    vectors = structure(state).vectors
    beyond = _BEYOND + (0.0 if middle is None else float(np.linalg.norm(vectors[0])))
    spec, size = samples.attributes["input"], 2 * (samples.attributes["input"]["radius"] + beyond)
    atoms = imaged_atoms(_wider(samples.attributes, 2 * beyond), state)
    values = samples.arrays["ldos"][row][:, atoms.copies] * atoms.layer_weight
    pixels = math.ceil(size * NM / PIXEL)
    places = atoms.positions - (0.0 if middle is None else middle @ vectors)
    painted = rasterise(places, values, side=size, pixels=pixels, width=ATOM_WIDTH)
    bias = np.asarray(spec["energies"], np.float64)
    raw = RawMap(painted, (size * NM, size * NM), bias, f"sample {row}", atom_width=told * ATOM_WIDTH * NM)
    return task.prepare(raw, spec if looked_for else {**spec, "moire": None}).image


def _wider(attributes: Mapping[str, Any], beyond: float) -> dict[str, Any]:
    """Return attributes of discs whose corners lie so far beyond the model's."""
    config, radius = attributes["config"], attributes["input"]["radius"]
    wide = math.sqrt(2) * (radius + beyond)
    return {**attributes, "config": {**config, "patch_radius": config["patch_radius"] * wide / radius}}


if __name__ == "__main__":
    main()
