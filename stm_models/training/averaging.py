"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch

from stm_models.networks.model import Model

__all__ = ["Average"]


class Average:
    """The moving average of a model: smoother than its last step, and often better.

    Attributes
    ----------
    model : Model
        Holds the averaged weights, in eval mode.

    Parameters
    ----------
    model : Model
        What is averaged.
    decay : float
        Share of the average that each step keeps, below 1; at first less, so that the start is soon forgotten.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model, self._decay = copy.deepcopy(model).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Take in the weights after ``step`` (from 0); running statistics too, whole numbers as they are."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in floating], [new for _, new in floating], weight)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)
