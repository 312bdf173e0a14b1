"""Small fields of the task impurity, and answers to them."""

import numpy as np

from stm_models.config import validate
from stm_models.physics.surface import materials
from stm_models.tasks.impurity.config import ImpuritySimulation
from stm_models.tasks.impurity.labels import heat_map
from stm_models.tasks.impurity.simulation import plan, simulator

GOLD = materials.create("Au(111)")
BIASES = np.array([-0.23, -0.105, 0.02])
QUIET = {"white": (0, 0), "one_over_f": (0, 0), "line": (0, 0), "spikes": (0, 0)}


def make(**changes):
    """The config of three fields of 32 x 32 pixels, with ``changes``."""
    return validate(
        ImpuritySimulation, {"fields": 3, "size": 32, "biases": [-0.23, -0.105, 0.02], **changes}, "simulate"
    )


def fields(**changes):
    """The simulated results of such a config."""
    config = make(**changes)
    simulate = simulator(config)
    return [simulate(group, None) for group in plan(config).groups]


def answer_of(task, spec, where, about=None, size=32, **more):
    """What the task tells of a heat map with its peaks at ``where`` (N, 2)."""
    prediction = heat_map(np.asarray(where, float), (size, size))[None, None]
    metadata = {"input": spec, "calibration": {}, "targets": []}
    outputs = {"prediction": prediction, "distance": np.array([1.0]), "novelty": np.array([0.5]), **more}
    return task.decode(outputs, metadata, about)[0]
