"""Training parameters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

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
    batch_size : int
        Samples of a batch, over all processes; halved once where memory does not suffice.
    patience : int
        Epochs without a better validation error before stopping.
    schedule : str
        Of the learning rate: ``constant``; ``cosine`` and ``one_cycle`` over ``epochs``; ``step`` multiplies it by
        ``decay_factor`` every ``decay_epochs`` epochs, ``plateau`` after as many without a better validation error.
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
        made again from maps, every epoch. Validation images stay as they were simulated.
    on_the_fly : bool
        Train on samples drawn anew for every batch, where the task can draw them, not on those of the data set.
    epoch_samples : int
        So many of them make an epoch.
    repeats : int
        An epoch shows the images as so many epochs perturbed them, the latest; what a network measures on them without
        weights is measured once.
    confidence_weight : float
        Weight in the loss of how unsure the network is of measured maps without labels.
    optimiser : str
        ``adamw``, or ``adam``, where ``weight_decay`` is an L2 term of the loss.
    warm_up : float
        Epochs over which the learning rate rises from zero, on top of the schedule.
    ema : float
        Decay per step of an exponential moving average of the weights, which is then what is validated, kept and
        exported; 0 switches it off.
    precision : str
        ``bf16`` runs the network's layers in bfloat16 where that is safe; weights, loss and validation stay float32.
    channels_last : bool or None
        Memory layout of images with the channels innermost; ``None``: as the network is the faster.
    compile : bool
        Compile the network before training.
    deterministic : bool
        Use only operations that give the same bits every time, also on a GPU.
    refit : bool
        Train once more on training and validation samples together, for as many epochs as were best.
    """

    network: str = "mlp"
    options: dict[str, Any] = Field(default_factory=dict)
    epochs: int = Field(40, ge=1, le=100_000)
    batch_size: int = Field(32, ge=1, le=65_536)
    learning_rate: float = Field(1e-3, gt=0, le=1e6)
    weight_decay: float = Field(1e-4, ge=0, le=10)
    schedule: Literal["cosine", "constant", "one_cycle", "step", "plateau"] = "cosine"
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
    repeats: int = Field(1, ge=1, le=1000)
    confidence_weight: float = Field(0.1, ge=0, le=1e3)
    optimiser: Literal["adamw", "adam"] = "adamw"
    warm_up: float = Field(0.0, ge=0, le=100_000)
    decay_epochs: int = Field(5, ge=1, validate_default=True)
    decay_factor: float = Field(0.5, gt=0, lt=1)
    ema: float = Field(0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool | None = None
    compile: bool = False
    deterministic: bool = False
    refit: bool = False

    @field_validator("decay_epochs")
    @classmethod
    def _before_the_end(cls, value: int, info: ValidationInfo) -> int:
        patience = info.data.get("patience", value + 1)
        if info.data.get("schedule") == "plateau" and value >= patience:
            raise ValueError(f"a plateau must be shorter than patience={patience}, which ends the training")
        return value
