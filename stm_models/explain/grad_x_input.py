"""Gradient times input: the first-order share of each pixel in the answer [1]_.

References
----------
.. [1] Shrikumar et al., arXiv:1605.01713.
"""

from __future__ import annotations

from torch import Tensor, nn

from stm_models.explain.gradient import slope

__all__ = ["grad_x_input"]


def grad_x_input(model: nn.Module, image: Tensor, focus: Tensor | None = None, *, target: int = 0) -> Tensor:
    """Return the (B, C, H, W) gradient times ``image`` (B, C, H, W), in the target's unit."""
    return slope(model, image, focus, target=target) * image
