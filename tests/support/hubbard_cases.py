"""Small simulations of the task hubbard."""

from stm_models.config import validate
from stm_models.tasks import registry
from stm_models.tasks.hubbard.config import HubbardSimulation

TASK = registry.get("hubbard")
SMALL = {
    "index": 2, "layer_distance": 2.75, "dielectric": None, "k_mesh": 2, "interaction": [1.0, 5.0],
    "interaction_count": 3, "replicates": 2, "draws": 2, "image_size": 33,
}  # fmt: skip
VARIED = {
    "index": [2, 1], "layer_distance": [2.7, 2.8], "strain": [0.0, 0.02], "strain_angle": [0, 180], "replicates": 4,
}  # fmt: skip
MAGNETIC = {"branch": "collinear", "interaction": [0.0, 8.0], "starts": ["pm", "fm", "af"], "max_iterations": 100}


def make(**changes):
    """The small simulation's config with ``changes``, such as those above."""
    return validate(HubbardSimulation, {**SMALL, **changes}, "simulate")
