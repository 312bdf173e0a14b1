"""Losses between standardised targets."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from stm_models.errors import unknown

__all__ = ["loss_function"]

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
    "l1": functional.l1_loss,
}


def loss_function(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss ``(prediction (B, T), target (B, T)) -> ()`` called ``mse``, ``huber`` or ``l1``.

    Raises
    ------
    InputError
        For another name.
    """
    if name not in _LOSSES:
        raise unknown("loss", name, _LOSSES)
    return _LOSSES[name]
