"""Guided backpropagation: the gradient with every ReLU letting only what is positive back through [1]_.

Notes
-----
It is defined for ReLU alone: a network with another activation is refused instead of being given a map that no paper
has defined. A sigmoid or softmax that makes the answer itself, or weights of attention, is no such activation.

References
----------
.. [1] Springenberg et al., "Striving for simplicity", arXiv:1412.6806.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from stm_models.explain.gradient import slope
from stm_models.networks.model import Model

__all__ = ["guided", "refusal"]

_RELU = {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_}
_OTHERS: dict[Any, str] = {
    getattr(place, name): name
    for place in (functional, torch, Tensor, torch._C._nn)
    for name in (
        "gelu", "silu", "hardswish", "hardtanh", "relu6", "elu", "selu", "celu", "leaky_relu", "prelu", "rrelu", "mish",
        "softplus", "tanh", "tanhshrink", "softsign", "logsigmoid", "threshold", "glu", "hardsigmoid",
    )
    if hasattr(place, name)
}  # fmt: skip


def refusal(model: Model) -> str:
    """Return why ``model`` has no such map; empty where it has one."""
    seen = _Seen()
    with torch.no_grad(), seen:
        model(torch.zeros(1, *model.pixel_mean.shape).to(model.pixel_mean))
    if seen.others:
        return f"guided backpropagation is defined for ReLU alone, and the network has {', '.join(sorted(seen.others))}"
    return "" if seen.relus else "the network has no ReLU: guided backpropagation would be the gradient"


def guided(model: Model, image: Tensor, focus: Tensor | None = None, *, target: int = 0) -> Tensor:
    """Return the (B, C, H, W) map of ``image`` (B, C, H, W), in the target's unit per the image's unit."""
    with _Guide():
        return slope(model, image, focus, target=target)


class _Guide(TorchFunctionMode):
    """Make every ReLU pass positive derivatives alone; those that are applied in place are not."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        if function not in _RELU:
            return function(*args, **(kwargs or {}))
        found = torch.relu(args[0])
        if found.requires_grad:
            found.register_hook(torch.relu)
        return found


class _Seen(TorchFunctionMode):
    """Note which activations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.relus, self.others = 0, set[str]()

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        self.relus += function in _RELU
        if function in _OTHERS:
            self.others.add(_OTHERS[function])
        return function(*args, **(kwargs or {}))
