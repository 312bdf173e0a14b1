"""Training parameters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stm_models.config import Config

__all__ = ["TrainConfig"]


class TrainConfig(Config):
    """How one network is trained; the defaults follow arXiv 2602.18890 where it says something.

    Attributes
    ----------
    network, options
        Name and overrides of `stm_models.networks.registry.default_options`.
    epochs : int
        Most passes over the training data.
    patience : int
        Epochs without a better validation error before stopping.
    loss : str
        One of the task's.
    clip_norm : float
        Largest norm of the gradient; 0 switches clipping off.
    seed : int
        Of initial weights, order of samples and dropout.
    threads : int or None
        CPU threads; ``None`` leaves the process's setting.
    device : str
        ``"auto"`` takes a CUDA device when there is one.
    targets : tuple of str or None
        Labels to learn, of those that the data set offers; ``None`` for the task's own.
    perturbation : str
        One of the task's perturbation sets, for the training images alone: each batch anew, or where images are
        made again from maps, every 20 epochs. Validation images stay as they were simulated.
    on_the_fly : bool
        Train on samples drawn anew for every batch, where the task can draw them, not on those of the data set.
    epoch_samples : int
        So many of them make an epoch.
    confidence_weight : float
        Weight in the loss of how unsure the network is of measured maps without labels.
    """

    network: str = "mlp"
    options: dict[str, Any] = Field(default_factory=dict)
    epochs: int = Field(40, ge=1, le=100_000)
    batch_size: int = Field(32, ge=1, le=65_536)
    learning_rate: float = Field(1e-3, gt=0, le=1e6)
    weight_decay: float = Field(1e-4, ge=0, le=10)
    schedule: Literal["cosine", "constant", "one_cycle"] = "cosine"
    loss: str = "mse"
    patience: int = Field(10, ge=1)
    clip_norm: float = Field(1.0, ge=0)
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int | None = Field(None, ge=1, le=1024)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    targets: tuple[str, ...] | None = Field(None, min_length=1)
    perturbation: str = "clean"
    on_the_fly: bool = False
    epoch_samples: int = Field(2048, ge=1, le=10_000_000)
    confidence_weight: float = Field(0.1, ge=0, le=1e3)
