"""How a network is applied and moved while training: optimiser, precision, memory layout, compilation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stm_models.errors import InputError, one_line
from stm_models.networks.model import Model
from stm_models.training.config import TrainConfig

__all__ = ["applied", "compiling", "create_optimiser"]

Forward = Callable[[Tensor], Tensor]
_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def create_optimiser(config: TrainConfig, model: Model) -> torch.optim.Optimizer:
    """Return the optimiser of ``model``'s weights."""
    kind = _OPTIMISERS[config.optimiser]
    return kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def applied(config: TrainConfig, model: Model, *, measured: bool = False) -> Forward:
    """Return how the network is applied while training: standardised images (B, C, H, W) to float32 answers.

    With ``measured`` it takes what the network's `measured` returned of them.

    Raises
    ------
    InputError
        When the device cannot compute in bfloat16.
    """
    device = model.pixel_mean.device
    half = config.precision == "bf16"
    if half and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("train.precision is bf16, which this GPU cannot compute in: set it to fp32")
    laid = model.network.channels_last if config.channels_last is None else config.channels_last
    if laid:
        model.network.to(memory_format=torch.channels_last)
    whole: Forward = model.network.from_measured if measured else model.network
    network: Forward = torch.compile(whole) if config.compile else whole

    def forward(x: Tensor) -> Tensor:
        if laid and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            answer: Tensor = network(x)
        return answer.float()

    return forward


def compiling(error: RuntimeError) -> InputError | None:
    """Return what to say where ``error`` is a failure of the compiler, else ``None``."""
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    reason = one_line(error, 150)
    return InputError(f"train.compile is true, but the network cannot be compiled here ({reason}): leave it out")
