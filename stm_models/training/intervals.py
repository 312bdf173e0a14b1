"""Bounds around predictions that hold with a stated probability: split conformal, scaled by what an image shows."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.signal.conformal import quantile, separate

__all__ = ["Interval", "Residuals", "least_groups"]

_HIDDEN = 16
_STEPS, _RATE, _DECAY = 300, 1e-2, 1e-2
_BINS, _GROUPS = 8, 3
_LIMIT = 6.0  # standard deviations of a hint; what lies farther out counts as that far
_RANGE = (-9.0, 3.0)  # of the logarithm of a spread, in units of the mean error

Array = NDArray[Any]


@dataclass(frozen=True)
class Residuals:
    """What a model made of samples whose truth is known.

    Attributes
    ----------
    hints : (S, F) float32
        What the spread of errors is told of an image, see `stm_models.networks.bundle.Bundle`.
    error : (S, T) float64
        Prediction minus truth, the targets' units.
    group : (S,) str
        Which state each is of: a name that no other state has.
    """

    hints: Array
    error: Array
    group: Array

    def subset(self, rows: Array) -> Residuals:
        """Return those at ``rows``, indices or a mask."""
        return Residuals(self.hints[rows], self.error[rows], self.group[rows])


def least_groups(level: float) -> int:
    """Return how many groups a finite interval of this level takes.

    Examples
    --------
    >>> least_groups(0.9)
    9
    """
    return math.ceil(level / (1 - level) - 1e-9)


class Interval(nn.Module):
    r"""Prediction -+ factor x spread, the factor depending on how large the spread is.

    Parameters
    ----------
    hints, outputs : int
        Numbers of hints F and of targets T.
    bins : int
        Number K of ranges of the spread, each with a factor of its own.

    Notes
    -----
    The spread s(x) > 0 of a target is a small network on hints of how an image differs from the usual and how noisy it
    is, trained so that errors are Laplace distributed with scale s. Whatever it says, the factor makes the interval
    hold for new groups like the calibration's: it is the quantile of |error| / s over those whose s is in the same
    range. So it holds for clean images, whose s is small, as for noisy ones, up to how well s tells them apart; that is
    measured.

    References
    ----------
    .. [1] Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-free predictive inference for regression",
       JASA 113, 1094 (2018): split conformal, locally weighted.
    .. [2] Boström, Johansson, "Mondrian conformal regressors", COPA, PMLR 128, 114 (2020): a factor per range.
    """

    mean: Tensor
    scale: Tensor
    unit: Tensor
    edges: Tensor
    factor: Tensor

    def __init__(self, hints: int, outputs: int, bins: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hints))
        self.register_buffer("scale", torch.ones(hints))
        self.register_buffer("unit", torch.ones(outputs))
        self.register_buffer("edges", torch.zeros(outputs, bins - 1))
        self.register_buffer("factor", torch.ones(outputs, bins))
        self.body = nn.Sequential(nn.Linear(hints, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, outputs))

    @classmethod
    def fit(cls, spread: Residuals, calibration: Residuals, *, level: float, seed: int = 0) -> Interval:
        """Learn the spread from one set of groups, and the factor from another.

        Parameters
        ----------
        spread, calibration : Residuals
            Of samples that the model was not fitted to. The more alike the calibration's are to those to come, the
            better what is stated holds.
        level : float
            Share of new samples whose truth is to lie inside, e.g. .9.
        seed : int
            Of the spread's first weights.

        Raises
        ------
        InputError
            When a group is in both, or the calibration has too few groups for the level.
        """
        separate(spread.group, calibration.group, "what the spread is learnt from and what it is calibrated on")
        made = cls(spread.hints.shape[1], spread.error.shape[1])
        made._learn(spread, seed)
        made.eval().requires_grad_(False)
        return made.calibrated(calibration, level)

    def calibrated(self, calibration: Residuals, level: float) -> Interval:
        """Return one of the same spread with the factor that other samples give; errors as `fit`."""
        count = len(np.unique(calibration.group))
        if count < least_groups(level):
            raise InputError(
                f"{count} held-out states are too few for an interval of level {level:g}: expected at least "
                f"{least_groups(level)}"
            )
        made = copy.deepcopy(self)
        with torch.no_grad():
            spread = made.spread(torch.from_numpy(calibration.hints)).double().numpy()
        scores = np.abs(calibration.error) / spread
        # A range has so many groups that its quantile is far from their largest score.
        bins = max(1, min(_BINS, count // (_GROUPS * least_groups(level))))
        edges = np.quantile(spread, np.arange(1, bins) / bins, axis=0).T.astype(np.float32)
        made.edges = torch.from_numpy(np.ascontiguousarray(edges))
        made.factor = torch.ones(len(edges), bins)
        for target, row in enumerate(edges):
            within = np.searchsorted(row, spread[:, target].astype(np.float32), side="left")
            for own in range(bins):
                rows = within == own
                found = quantile(scores[rows, target], calibration.group[rows], level) if rows.any() else math.inf
                made.factor[target, own] = found
        whole = [quantile(column, calibration.group, level) for column in scores.T]
        # Samples of the same spread may leave a range without the groups that a finite factor takes.
        made.factor = torch.where(made.factor.isfinite(), made.factor, torch.tensor(whole)[:, None])
        return made

    def spread(self, hints: Tensor) -> Tensor:
        """Return how far predictions may be off: (B, T), the targets' units, for hints (B, F)."""
        scaled = ((hints - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)
        found: Tensor = self.unit * self.body(scaled).clamp(*_RANGE).exp()
        return found

    def forward(self, hints: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds (B, T), the targets' units, of predictions (B, T) with hints (B, F)."""
        spread = self.spread(hints)
        factor = self.factor[:, 0]
        if self.edges.shape[1]:  # a sum of steps is what an ONNX graph has for a look-up
            passed = (spread[:, :, None] > self.edges).to(spread.dtype)
            factor = factor + (passed * (self.factor[:, 1:] - self.factor[:, :-1])).sum(dim=2)
        reach = factor * spread
        return prediction - reach, prediction + reach

    def _learn(self, spread: Residuals, seed: int) -> None:
        hints, error = torch.from_numpy(spread.hints), torch.from_numpy(np.abs(spread.error)).float()
        self.mean.copy_(hints.mean(dim=0))
        self.scale.copy_(hints.std(dim=0, unbiased=False).clamp_min(1e-6))
        self.unit.copy_(error.mean(dim=0).clamp_min(1e-12))
        generator = torch.Generator().manual_seed(seed)
        for layer in self.body:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)
        optimiser = torch.optim.AdamW(self.body.parameters(), lr=_RATE, weight_decay=_DECAY)
        with torch.enable_grad():
            for _ in range(_STEPS):
                optimiser.zero_grad()
                scale = self.spread(hints)
                (scale.log() + error / scale).mean().backward()
                optimiser.step()
