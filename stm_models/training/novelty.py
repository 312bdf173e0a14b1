"""How far an image lies from the training data, and how often images like those of the training lie as far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.signal.conformal import TailTable, tail_table
from stm_models.training.appearance import Appearance

__all__ = ["Novelty"]

_QUANTILES = ("0.5", "0.95", "0.99", "1.0")
_PRINCIPAL = 5
_LEAST = 1e-6  # of the leading variance
_CLOSEST = 1e-4  # of the targets' spread; members of an ensemble that are closer count as that far apart

Array = NDArray[Any]


class Novelty(nn.Module):
    r"""Mahalanobis distance of what is seen of an image to that of the training images, and its conformal p-value.

    Parameters
    ----------
    features : int
        Number F of what is seen of an image: its penultimate features and, with ``appearance``, how it looks.
    sets, knots : int
        Sizes of the tables of held-out distances: of so many kinds of images, so many distances each.
    appearance : Appearance, optional
        For networks that take images of one size.

    Notes
    -----
    With what is seen f, its mean m and covariance C over the training images (shrunk as Ledoit and Wolf do),
    distance = sqrt((f - m)^T C^-1 (f - m) / F) / unit, 1 being the median of held-out images.

    The p-value of one kind of images (clean, noisy, ...) is how often held-out ones are at least as far, see
    `stm_models.signal.conformal.tail_table`; ``novelty`` is the largest of them. An image is strange only where it is
    for every kind that the model knows, so that each kind gives false alarms no more often than stated.

    References
    ----------
    .. [1] Ledoit, Wolf, J. Multivar. Anal. 88, 365 (2004).
    .. [2] Lee, Lee, Lee, Shin, "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018.
    .. [3] Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", Ann. Stat. 51 (2023).
    """

    mean: Tensor
    directions: Tensor
    unit: Tensor
    starts: Tensor
    widths: Tensor
    weights: Tensor
    floor: Tensor

    def __init__(self, features: int, sets: int = 1, knots: int = 1, appearance: Appearance | None = None) -> None:
        super().__init__()
        self.appearance = appearance
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("directions", torch.eye(features))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("starts", torch.zeros(sets, knots))
        self.register_buffer("widths", torch.ones(sets, knots))
        self.register_buffer("weights", torch.zeros(sets, knots))
        self.register_buffer("floor", torch.zeros(sets))

    @classmethod
    def fit(cls, features: Array, appearance: Appearance | None = None) -> Novelty:
        """Learn where training images (S, F), as `seen`, lie; to be calibrated before it tells a p-value.

        Raises
        ------
        InputError
            When there are fewer than two, all are equal, or they hold NaN or infinity.
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or len(values) < 2:
            raise InputError(f"features have shape {values.shape}: expected those of at least 2 images to tell others")
        if not np.isfinite(values).all():
            raise InputError("the features hold NaN or infinity: train the model anew")
        from sklearn.covariance import ledoit_wolf  # here: the exporter loads a finished model without it

        centre, spread = values.mean(axis=0), values.std(axis=0)
        if not spread.max() > 0:
            raise InputError(f"all {len(values)} images have the same features: give images that vary")
        spread = np.maximum(spread, _LEAST**0.5 * spread.max())
        covariance, _ = ledoit_wolf((values - centre) / spread, assume_centered=True)
        sizes, directions = np.linalg.eigh(covariance)
        sizes = np.maximum(sizes[::-1], _LEAST * sizes[-1])
        made = cls(values.shape[1], appearance=appearance)
        made.mean.copy_(torch.from_numpy(centre))
        made.directions.copy_(torch.from_numpy(directions[:, ::-1] / np.sqrt(sizes) / spread[:, None]))
        return made.eval()

    def calibrated(self, sets: Mapping[str, tuple[Array, Array]]) -> tuple[Novelty, dict[str, float]]:
        """Return it with the p-values that held-out images give.

        Parameters
        ----------
        sets : mapping of str to ((S, F) as `seen`, (S,) groups)
            By the name of each kind of images.

        Returns
        -------
        novelty : Novelty
        quantiles : dict of str to float
            Of the distance over all of them: ``"0.5"`` (1 by construction), ``"0.95"``, ``"0.99"``, ``"1.0"``.

        Raises
        ------
        InputError
            Without images, or with NaN or infinity in their features.
        """
        if not sets or any(len(features) == 0 or not np.isfinite(features).all() for features, _ in sets.values()):
            raise InputError(
                "novelty cannot be calibrated: expected held-out images of every kind, with finite features"
            )
        found = {name: self._distances(features) for name, (features, _) in sets.items()}
        unit = max(float(np.median(np.concatenate(list(found.values())))), 1e-12)
        tables = [tail_table(found[name] / unit, groups) for name, (_, groups) in sets.items()]
        knots = max(len(table.starts) for table in tables)
        made = Novelty(len(self.mean), len(tables), knots, self.appearance)
        made.mean.copy_(self.mean)
        made.directions.copy_(self.directions)
        made.unit.copy_(self.unit * unit)
        for row, table in enumerate(tables):
            made._take(row, table)
        scaled = np.concatenate(list(found.values())) / unit
        return made.eval(), {name: float(np.quantile(scaled, float(name))) for name in _QUANTILES}

    def seen(self, features: Tensor, x: Tensor) -> Tensor:
        """Return what is seen of images ``x`` (B, C, H, W), given their penultimate ``features``: (B, F)."""
        return features if self.appearance is None else torch.cat([features, self.appearance(x)], dim=1)

    def coordinates(self, features: Tensor) -> Tensor:
        """Return features (B, F) along the principal directions, in units of the training spread: (B, F)."""
        return (features - self.mean) @ self.directions

    def forward(self, features: Tensor) -> Tensor:
        """Return the (B,) distances of images with ``features`` (B, F)."""
        return self.coordinates(features).square().mean(dim=1).sqrt() / self.unit

    def p_value(self, distance: Tensor) -> Tensor:
        """Return (B,), in (0, 1], how often images of the kind that fits best lie as far as ``distance`` (B,)."""
        passed = ((distance[:, None, None] - self.starts) / self.widths).clamp(0, 1)
        share = (1 - (passed * self.weights).sum(dim=2)).clamp_min(0.0)
        return torch.maximum(share, self.floor).amax(dim=1)

    def hints(self, features: Tensor, noise: Tensor, apart: Tensor) -> Tensor:
        """Return what the spread of errors is told of images: the distance, and their noise or else where they lie.

        ``noise`` (B, N) as the network measures it, N = 0 where it does not. ``apart`` (B, T): the spread of an
        ensemble's members over that of the targets, whose logarithm is a hint as well; T = 0 of one network.
        """
        where = self.coordinates(features)
        distance = where.square().mean(dim=1, keepdim=True).clamp_min(1e-12).sqrt() / self.unit
        own = noise if noise.shape[1] else where[:, :_PRINCIPAL]
        return torch.cat([2 * distance.log(), own, apart.clamp_min(_CLOSEST).log()], dim=1)

    def _distances(self, features: Array) -> Array:
        with torch.no_grad():
            return self(torch.from_numpy(np.asarray(features, np.float32))).double().numpy()

    def _take(self, row: int, table: TailTable) -> None:
        for name in ("starts", "widths", "weights"):
            values = torch.from_numpy(getattr(table, name))
            getattr(self, name)[row, : len(values)] = values.float()
        self.floor[row] = table.floor
