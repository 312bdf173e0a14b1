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

_HIDDEN = 32
_STEPS, _RATE, _DECAY = 300, 1e-2, 1e-2
_LIMIT = 6.0  # standard deviations of a feature; what lies farther out counts as that far
_RANGE = (-9.0, 3.0)  # of the logarithm of a spread, in units of the targets' own
_BANDS = 8
_PER_BAND = 60  # groups, at least

Floats = NDArray[Any]


@dataclass(frozen=True)
class Residuals:
    """What a model made of samples whose truth is known.

    Attributes
    ----------
    features : (S, F) float32
        Penultimate ones.
    error : (S, T) float64
        Prediction minus truth, the targets' units.
    group : (S,) str
        Which state each is of: a name that no other state has.
    """

    features: Floats
    error: Floats
    group: Floats


def least_groups(level: float) -> int:
    """Return how many groups a finite interval of this level takes.

    Examples
    --------
    >>> least_groups(0.9)
    9
    """
    return math.ceil(level / (1 - level) - 1e-9)


class Interval(nn.Module):
    r"""Prediction -+ quantile x spread.

    Parameters
    ----------
    features, outputs, bands : int
        Numbers of features F, targets T and bands K.

    Notes
    -----
    The spread s(x) > 0 of a target is a small network on the model's penultimate features, trained so that errors are
    Laplace distributed with scale s: it knows noisy images from clean ones. Whatever it says, the quantile makes the
    interval hold: that of |error| / s over held-out groups, within bands of s, so that it holds for images that are
    read well as for those that are read badly.

    References
    ----------
    .. [1] Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-free predictive inference for regression",
       JASA 113, 1094 (2018): split conformal, locally weighted.
    .. [2] Boström, Johansson, "Mondrian conformal regressors", PMLR 128 (2020): in bands of difficulty.
    """

    mean: Tensor
    scale: Tensor
    unit: Tensor
    edges: Tensor
    quantiles: Tensor

    def __init__(self, features: int, outputs: int, bands: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("unit", torch.ones(outputs))
        self.register_buffer("edges", torch.zeros(outputs, bands - 1))
        self.register_buffer("quantiles", torch.ones(outputs, bands))
        self.body = nn.Sequential(nn.Linear(features, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, outputs))

    @classmethod
    def fit(cls, spread: Residuals, calibration: Residuals, *, level: float, seed: int = 0) -> Interval:
        """Learn the spread from one set of groups, and the quantiles from another.

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
        count = len(np.unique(calibration.group))
        made = cls(spread.features.shape[1], spread.error.shape[1], max(1, min(_BANDS, count // _PER_BAND)))
        made._learn(spread, seed)
        made.eval().requires_grad_(False)
        return made.calibrated(calibration, level)

    def calibrated(self, calibration: Residuals, level: float) -> Interval:
        """Return one of the same spread with the quantiles of other samples; errors as `fit`."""
        count = len(np.unique(calibration.group))
        if count < least_groups(level):
            raise InputError(
                f"{count} held-out states are too few for an interval of level {level:g}: expected at least "
                f"{least_groups(level)}"
            )
        made = copy.deepcopy(self)
        scales = made.spread(torch.from_numpy(calibration.features)).numpy()
        for column in range(scales.shape[1]):
            made._calibrate(column, scales[:, column], calibration, level)
        return made

    @classmethod
    def blank(cls, features: int, outputs: int, bands: int) -> Interval:
        """Return an unfitted one, to be filled by ``load_state_dict``."""
        return cls(features, outputs, bands)

    def spread(self, features: Tensor) -> Tensor:
        """Return how far predictions may be off: (B, T), the targets' units, for features (B, F)."""
        scaled = ((features - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)
        return self.unit * self.body(scaled).clamp(*_RANGE).exp()

    def forward(self, features: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds (B, T), the targets' units, of predictions (B, T) from features (B, F)."""
        spread = self.spread(features)
        # The band's quantile, as a sum of steps: ONNX has no search in a sorted list.
        steps = self.quantiles[:, 1:] - self.quantiles[:, :-1]
        factor = self.quantiles[:, 0] + ((spread[:, :, None] >= self.edges) * steps).sum(dim=2)
        reach = factor * spread
        return prediction - reach, prediction + reach

    def _learn(self, spread: Residuals, seed: int) -> None:
        found, error = torch.from_numpy(spread.features), torch.from_numpy(np.abs(spread.error)).float()
        self.mean.copy_(found.mean(dim=0))
        self.scale.copy_(found.std(dim=0, unbiased=False).clamp_min(1e-6))
        self.unit.copy_(error.mean(dim=0).clamp_min(1e-12))
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.body[0], self.body[2]):
            assert isinstance(layer, nn.Linear)  # noqa: S101
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        optimiser = torch.optim.AdamW(self.body.parameters(), lr=_RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
        with torch.enable_grad():
            for _ in range(_STEPS):
                optimiser.zero_grad()
                scale = self.spread(found)
                (scale.log() + error / scale).mean().backward()
                optimiser.step()
                schedule.step()

    def _calibrate(self, column: int, scale: Floats, calibration: Residuals, level: float) -> None:
        """Set the edges of the bands, with equally many samples in each, and their quantiles."""
        bands = self.quantiles.shape[1]
        edges = np.quantile(scale, np.arange(1, bands) / bands)
        band = np.searchsorted(edges.astype(np.float32), scale, side="right")
        scores = np.abs(calibration.error[:, column]) / scale
        for number in range(bands):
            inside = band == number
            self.quantiles[column, number] = quantile(scores[inside], calibration.group[inside], level)
        self.edges[column] = torch.from_numpy(edges)
