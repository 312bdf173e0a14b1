"""How large a reproduction of arXiv:2006.15898 is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from stm_models.config import Config

__all__ = ["ABLATIONS", "OURS", "PRESETS", "ReproductionConfig"]

ABLATIONS = ("no noise", "noise", "no noise + reg", "noise + reg")
"""Of Fig. 4: whether the training tiles have noise, and whether the entropy on the experiment is minimised too."""
OURS = "fieldnet"
"""Our network."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "quick": {
        "seeds": 2, "our_seeds": 1, "judged": 4, "epochs": 10, "our_fields": 240, "our_epochs": 5,
        "peaks": 8,
    },
    "test": {
        "seeds": 2, "our_seeds": 1, "experiments": ["std"], "fields": 1, "judged": 1, "field": 40, "tiles": 30,
        "epochs": 2, "our_fields": 10, "our_epochs": 1, "peaks": 2, "biases": [-0.23, -0.105, 0.02],
    },
}  # fmt: skip


class ReproductionConfig(Config):
    """How large a reproduction is.

    Attributes
    ----------
    seeds, our_seeds : int
        Trainings of each ablation, and of our network.
    experiments : tuple of str
        Presets that stand for the measurement.
    fields : int
        Of each; the regularisation sees their maps, and Fig. 4 is scored on them, as in the paper.
    judged : int
        Further fields of each for the table, which no training sees.
    field, tile : int
        px; the paper's 80 and 20.
    tiles, epochs : int
        Training tiles of Eq. 3, of which a tenth validates, and passes over them.
    eta : float
        Noise of the training with noise.
    alpha : float
        Weight of the regularisation.
    our_fields, our_epochs : int
        Training of our network with the task's default preset.
    peaks : int
        So many impurities of each experiment are occluded.
    biases : tuple of float or None
        V; the simulation's own.
    seed : int
        Of the first training; the others follow.
    """

    seeds: int = Field(10, ge=1, le=1000)
    our_seeds: int = Field(3, ge=1, le=1000)
    experiments: tuple[str, ...] = Field(("std", "hard"), min_length=1)
    fields: int = Field(2, ge=1, le=1000)
    judged: int = Field(20, ge=1, le=1000)
    field: int = Field(80, ge=16, le=512)
    tile: int = Field(20, ge=8, le=128)
    tiles: int = Field(800, ge=20, le=1_000_000)
    epochs: int = Field(15, ge=1, le=1000)
    eta: float = Field(0.8, gt=0, le=10)
    alpha: float = Field(0.03, gt=0, le=10)
    our_fields: int = Field(1200, ge=10, le=1_000_000)
    our_epochs: int = Field(7, ge=1, le=1000)
    peaks: int = Field(24, ge=1, le=1000)
    biases: tuple[float, ...] | None = None
    seed: int = Field(0, ge=0, lt=2**31 - 1000)

    @model_validator(mode="after")
    def _possible(self) -> ReproductionConfig:
        if self.field % self.tile:
            raise ValueError(f"a field of {self.field} px is not made of tiles of {self.tile} px")
        return self
