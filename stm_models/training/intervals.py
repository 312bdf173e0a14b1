"""Bounds around predictions that hold with a stated probability: split conformal, scaled by what an image shows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.signal.conformal import quantile, separate
from stm_models.training.reproducible import threads

__all__ = ["Interval", "Residuals", "least_groups"]

_HIDDEN = 16
_PARTS = 5  # of the groups that the spread is learnt from, each of which tells once whether it was
_STEPS, _RATE, _DECAY = 300, 1e-2, 1e-2
_BINS, _EACH, _GROUPS = 8, 3, 3
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
    kind : (S,) int, optional
        Which set of images each is from: 0, 1, ...; by default all are from one.
    """

    hints: Array
    error: Array
    group: Array
    kind: Array | None = None

    @property
    def kinds(self) -> Array:
        """Kinds (S,) of the samples."""
        return np.zeros(len(self.group), np.int64) if self.kind is None else self.kind

    def subset(self, rows: Array) -> Residuals:
        """Return those at ``rows``, indices or a mask."""
        return Residuals(self.hints[rows], self.error[rows], self.group[rows], self.kinds[rows])


def least_groups(level: float) -> int:
    """Return how many groups a finite interval of this level takes.

    Examples
    --------
    >>> least_groups(0.9)
    9
    """
    return math.ceil(level / (1 - level) - 1e-9)


class Interval(nn.Module):
    r"""Prediction -+ factor x spread, the factor depending on what kind of image it looks like and on the spread.

    Parameters
    ----------
    hints, outputs : int
        Numbers of hints F and of targets T.
    kinds, bins : int
        Numbers of kinds of images K, and of ranges R of the spread in each, with a factor of their own.

    Notes
    -----
    The spread s(x) > 0 of a target is a small network on hints of how an image differs from the usual and how noisy it
    is, trained so that errors are Laplace distributed with scale s. Where this tells errors of groups left out worse
    than their mean size does, as with few of them, it is that mean for all. Whatever it says, the factor makes the
    interval hold for new groups like the calibration's: it is the quantile of |error| / s over those that look like the
    same kind of image (clean, noisy, ...) and whose s is in the same range. What an image looks like is the answer of a
    second small network on the hints. A clean image and one of a noisy set that no noise met look alike, and are;
    so the bounds hold for every look, and for every set up to how well its images are told apart; that is measured.

    References
    ----------
    .. [1] Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-free predictive inference for regression",
       JASA 113, 1094 (2018): split conformal, locally weighted.
    .. [2] Boström, Johansson, "Mondrian conformal regressors", COPA, PMLR 128, 114 (2020): a factor per category.
    """

    mean: Tensor
    scale: Tensor
    unit: Tensor
    edges: Tensor
    factor: Tensor

    def __init__(self, hints: int, outputs: int, kinds: int = 1, bins: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hints))
        self.register_buffer("scale", torch.ones(hints))
        self.register_buffer("unit", torch.ones(outputs))
        self.register_buffer("edges", torch.zeros(outputs, kinds, bins - 1))
        self.register_buffer("factor", torch.ones(outputs, kinds, bins))
        self.body = nn.Sequential(nn.Linear(hints, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, outputs))
        self.look = nn.Sequential(nn.Linear(hints, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, kinds))

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
        kinds = 1 + int(max(spread.kinds.max(), calibration.kinds.max()))
        made = cls(spread.hints.shape[1], spread.error.shape[1], kinds)
        made._begin(spread, seed)
        made._learn_spread(spread)
        made._learn_looks(spread)
        if not _tells(spread, seed):
            made._level()
        made.eval().requires_grad_(False)
        return made.calibrated(calibration, level)

    @property
    def learnt(self) -> bool:
        """Whether the spread is another for every image."""
        return bool(self.body[-1].weight.any())

    def calibrated(self, calibration: Residuals, level: float) -> Interval:
        """Return one of the same spread with the factor that other samples give.

        Raises
        ------
        InputError
            When they are of too few groups for the level.
        """
        count = len(np.unique(calibration.group))
        if count < least_groups(level):
            raise InputError(
                f"{count} held-out states are too few for an interval of level {level:g}: expected at least "
                f"{least_groups(level)}"
            )
        made = copy.deepcopy(self)
        with torch.no_grad():
            hints = torch.from_numpy(calibration.hints)
            spread, look = made.spread(hints).numpy(), made.looks(hints).argmax(dim=1).numpy()
        scores = np.abs(calibration.error) / spread.astype(np.float64)
        targets, kinds = made.factor.shape[:2]
        # A range has so many groups that its quantile is far from their largest score.
        bins = max(1, min(_EACH if kinds > 1 else _BINS, count // (_GROUPS * least_groups(level))))
        made.edges, made.factor = torch.zeros(targets, kinds, bins - 1), torch.ones(targets, kinds, bins)
        for target in range(targets):
            whole = quantile(scores[:, target], calibration.group, level)
            for kind in range(kinds):
                rows = look == kind
                own = calibration.subset(rows)
                found = _ranges(spread[rows, target], scores[rows, target], own.group, level, bins)
                made.edges[target, kind] = torch.from_numpy(found[0])
                # Few may look like a kind, or samples of the same spread leave a range without groups enough.
                made.factor[target, kind] = torch.from_numpy(np.where(np.isfinite(found[1]), found[1], whole))
        return made

    def looks(self, hints: Tensor) -> Tensor:
        """Return how much images with hints (B, F) look like each kind: (B, K) logits."""
        found: Tensor = self.look(self._scaled(hints))
        return found

    def spread(self, hints: Tensor) -> Tensor:
        """Return how far predictions may be off: (B, T), the targets' units, for hints (B, F)."""
        found: Tensor = self.unit * self.body(self._scaled(hints)).clamp(*_RANGE).exp()
        return found

    def _scaled(self, hints: Tensor) -> Tensor:
        return ((hints - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)

    def forward(self, hints: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower and upper bounds (B, T), the targets' units, of predictions (B, T) with hints (B, F)."""
        spread = self.spread(hints)
        # Sums of steps are what an ONNX graph has for a look-up: (B, T, K), and of these the kind that it looks like.
        passed = (spread[:, :, None, None] > self.edges).to(spread.dtype)
        steps = self.factor[:, :, 1:] - self.factor[:, :, :-1]
        factors = self.factor[:, :, 0] + (passed * steps).sum(dim=3)
        looks = self.looks(hints)
        chosen = (looks >= looks.amax(dim=1, keepdim=True)).to(spread.dtype)
        factor = (factors * chosen[:, None]).sum(dim=2) / chosen.sum(dim=1, keepdim=True)
        reach = factor * spread
        return prediction - reach, prediction + reach

    def _begin(self, spread: Residuals, seed: int) -> None:
        hints, error = torch.from_numpy(spread.hints), _size(spread)
        self.mean.copy_(hints.mean(dim=0))
        self.scale.copy_(hints.std(dim=0, unbiased=False).clamp_min(1e-6))
        self.unit.copy_(error.mean(dim=0).clamp_min(1e-12))
        generator = torch.Generator().manual_seed(seed)
        for layer in (*self.body, *self.look):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)

    def _learn_spread(self, spread: Residuals) -> None:
        _fit(self.body, lambda: self._unlikeliness(spread))

    def _learn_looks(self, spread: Residuals) -> None:
        hints, kind = torch.from_numpy(spread.hints), torch.from_numpy(spread.kinds.astype(np.int64))
        weight = (1 / torch.bincount(kind, minlength=self.factor.shape[1]).clamp_min(1)).to(self.unit)
        _fit(self.look, lambda: nn.functional.cross_entropy(self.looks(hints), kind, weight=weight))

    def _unlikeliness(self, seen: Residuals) -> Tensor:
        """Return minus the mean logarithm of the likelihood of errors, up to a constant."""
        scale = self.spread(torch.from_numpy(seen.hints))
        return (scale.log() + _size(seen) / scale).mean()

    def _level(self) -> None:
        """Make the spread the mean size of the errors, whatever the image."""
        nn.init.zeros_(self.body[-1].weight)
        nn.init.zeros_(self.body[-1].bias)


def _size(seen: Residuals) -> Tensor:
    return torch.from_numpy(np.abs(seen.error)).float()


def _tells(spread: Residuals, seed: int) -> bool:
    """Tell whether a spread learnt from some of the groups makes the errors of the others likelier than their mean."""
    groups = np.unique(spread.group)
    parts = min(_PARTS, len(groups))
    gained = 0.0
    for part in range(parts if parts > 1 else 0):
        own = np.isin(spread.group, groups[part::parts])
        others, rest = spread.subset(~own), spread.subset(own)
        made = Interval(spread.hints.shape[1], spread.error.shape[1])
        made._begin(others, seed)
        made._learn_spread(others)
        with torch.no_grad():
            learnt = float(made._unlikeliness(rest))
            made._level()
            gained += len(rest.group) * (float(made._unlikeliness(rest)) - learnt)
    return gained > 0


def _fit(body: nn.Module, loss: Callable[[], Tensor]) -> None:
    optimiser = torch.optim.AdamW(body.parameters(), lr=_RATE, weight_decay=_DECAY)
    with torch.enable_grad(), threads(1):  # so little work that two of them mostly wait for one another
        for _ in range(_STEPS):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()


def _ranges(spread: Array, scores: Array, group: Array, level: float, bins: int) -> tuple[Array, Array]:
    """Return edges (bins - 1,) float32 of ranges of the spread (S,), and the factor (bins,) float32 of each."""
    if not len(spread):
        return np.zeros(bins - 1, np.float32), np.full(bins, np.inf, np.float32)
    edges = np.quantile(spread, np.arange(1, bins) / bins).astype(np.float32)
    within = np.searchsorted(edges, spread, side="left")
    parts = [within == own for own in range(bins)]
    found = [quantile(scores[rows], group[rows], level) if rows.any() else math.inf for rows in parts]
    return edges, np.array(found, np.float32)
