"""Data sets of the task hubbard with random LDOS, made without its simulator."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from stm_models.data.store import Store, create
from stm_models.physics.moire.fourier import KGrid, direct_transform
from stm_models.physics.moire.lattice import build, patch
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.task import HubbardTask
from stm_models.tasks.plan import GroupResult

TASK = HubbardTask()
SIZE = 16


def config_of(**values):
    usual = {"index": 2, "layer_distance": 2.75, "interaction_count": 5, "replicates": 2, "draws": 2}
    return HubbardSimulation(**{**usual, "image_size": SIZE, "patch_radius": 1.5, **values})


def make(path: Path, config: HubbardSimulation, flagged: tuple[int, ...] = (), blank: bool = False) -> Path:
    """A data set with random LDOS; its images by the slow sum, written out here once more."""
    plan = replace(TASK.plan(config), state={})
    create(path, plan, {
        **plan.attributes, "task": "hubbard", "config": config.model_dump(mode="json"), "recipe": "r" * 64,
        "targets": [asdict(target) for target in TASK.targets],
    })  # fmt: skip
    store = Store(path)
    radius = 1.5 * np.sqrt(3 * max(config.index) ** 2 + 3 * max(config.index) + 1)
    for group in plan.groups:
        known = group.parameters
        lattice = build(round(known["index"]), known["layer_distance"], known["strain"], known["strain_angle"])
        points, copies = patch(lattice, radius)
        envelope = np.exp(-(points**2).sum(1) / (2 * (config.envelope * radius) ** 2))
        weight = envelope * np.where(lattice.layer[copies] == 0, config.bottom_layer, 1.0)
        rng = np.random.default_rng([7, group.index])
        ldos = np.zeros((config.draws, *plan.arrays["ldos"].shape), np.float32)
        ldos[..., : lattice.size] = rng.uniform(0.2, 1, (*ldos.shape[:2], lattice.size))
        weights = ldos[..., copies].astype(float) * weight
        flat = weights.reshape(-1, len(points))
        image = np.abs(direct_transform(*points.T, flat, KGrid(SIZE))) / flat.sum(1)[:, None, None]
        image = image.reshape(*weights.shape[:2], SIZE, SIZE)
        scalars = {variable.name: 0.25 * group.index for variable in plan.scalars}
        scalars["converged"] = float(group.index not in flagged)
        store.write(group, GroupResult({"image": image * (not blank), "ldos": ldos}, {}, scalars))
    store.finish()
    return path
