"""How large a reproduction of arXiv 2602.18890 is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stm_models.config import Config

__all__ = ["OURS", "PRESETS", "ReproductionConfig"]

OURS = "lattice"
"""Our network."""
_Fraction = Annotated[float, Field(gt=0, lt=0.8)]


class ReproductionConfig(Config):
    """Sizes; an empty tuple leaves a part out.

    Attributes
    ----------
    preset : str
        Of the task, whose physics the data have.
    replicates, interaction_count, draws, image_size
        Of the training data, as in the task's section ``simulate``; ``None``: the preset's.
    test_replicates : int
        Chains to test on, at the same U and at random U, none of them in the training data; as many draws as 1.
    transfer_states : int
        States of each structure that the training data do not have.
    calibrate : int
        States that novelty is calibrated on.
    seeds, seed : int
        Trainings of each kind, and the first seed. A seed decides weights, order, and which states validate.
    networks, perturbed : tuple of str
        Trained on clean images, and on perturbed ones.
    epochs, patience, learning_rate, schedule
        Of the paper's networks.
    our_epochs, perturbed_epochs : int
        Of our network on clean images, and of all on perturbed ones.
    fractions, efficient
        Shares of the states to train on, and which networks are.
    variants : tuple of str
        Presets of the task whose data our network learns too, with ``variant_replicates`` chains of
        ``variant_count`` values of U.
    layer_distances, fillings, indices
        Structures to transfer to.
    explained : tuple of str
        Networks whose Grad-CAM and guided maps are related to U.
    noises : tuple of str
        Perturbation sets that each test is made in too.
    rings : int
        Rings of \\|k\\| of equal width.
    """

    preset: str = "paper"
    replicates: int | None = Field(None, ge=1, le=100_000)
    interaction_count: int | None = Field(None, ge=5, le=10_000)
    draws: int | None = Field(None, ge=1, le=1000)
    image_size: int | None = Field(None, ge=8, le=2048)
    test_replicates: int = Field(2, ge=1, le=1000)
    transfer_states: int = Field(48, ge=2, le=100_000)
    calibrate: int = Field(300, ge=0, le=100_000)
    seeds: int = Field(5, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**31 - 1000)
    networks: tuple[str, ...] = Field(
        ("linear", "fc", "conv", "resnet18", "timm:resnet10t", OURS), min_length=1, max_length=32
    )
    perturbed: tuple[str, ...] = ("conv", OURS)
    epochs: int = Field(40, ge=1, le=100_000)
    patience: int = Field(10, ge=1)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    schedule: Literal["cosine", "constant", "one_cycle"] = "cosine"
    our_epochs: int = Field(400, ge=1, le=100_000)
    perturbed_epochs: int = Field(300, ge=1, le=100_000)
    fractions: tuple[_Fraction, ...] = (0.05, 0.1, 0.2, 0.4)
    efficient: tuple[str, ...] = ("conv", OURS)
    variants: tuple[str, ...] = ("magnetic", "fillings")
    variant_replicates: int = Field(8, ge=2, le=100_000)
    variant_count: int = Field(13, ge=5, le=10_000)
    layer_distances: tuple[float, ...] = (2.98,)
    fillings: tuple[float, ...] = (2.0,)
    indices: tuple[int, ...] = (8,)
    explained: tuple[str, ...] = ("conv",)
    noises: tuple[str, ...] = ("mild", "symb", "noisy", "instrument")
    rings: int = Field(8, ge=0, le=64)

    @field_validator("networks", "perturbed", "noises", "fractions", "efficient", "variants", "explained")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected each once")
        return value


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "quick": {
        "preset": "quick", "image_size": 64, "transfer_states": 24, "calibrate": 240, "seeds": 2, "epochs": 12,
        "patience": 12, "learning_rate": 3e-3, "schedule": "one_cycle", "our_epochs": 200, "perturbed_epochs": 40,
        "perturbed": [OURS], "fractions": [0.1, 0.2, 0.4], "variant_replicates": 4, "variant_count": 7,
        "layer_distances": [2.82], "indices": [6],
    },
    "test": {
        "preset": "test", "image_size": 32, "replicates": 4, "interaction_count": 9, "draws": 1, "test_replicates": 1,
        "transfer_states": 6, "calibrate": 0, "seeds": 1, "networks": ["linear", "conv", OURS], "perturbed": [],
        "epochs": 2, "patience": 2, "our_epochs": 20, "fractions": [0.4], "efficient": [OURS], "variants": [],
        "layer_distances": [2.9], "fillings": [], "indices": [], "noises": ["mild"], "rings": 3,
    },
}  # fmt: skip
