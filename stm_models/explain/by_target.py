"""Maps of a whole data set: their mean in bins of a quantity, and the shares that regions get of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.explain import localisation

__all__ = ["ByTarget", "MeanMaps", "mean_maps_by_target"]

Array = NDArray[Any]
_BATCH = 16


class MeanMaps:
    """Mean of maps, and of their absolute values, in each bin; maps come in batches and are not kept."""

    def __init__(self, bins: int, shape: tuple[int, ...]) -> None:
        self.counts = np.zeros(bins, np.int64)
        self._sum, self._strength = np.zeros((bins, *shape)), np.zeros((bins, *shape))

    def add(self, maps: Array, which: Array) -> None:
        """Count maps (M, C, H, W) to the bins ``which`` (M,)."""
        np.add.at(self._sum, which, maps)
        np.add.at(self._strength, which, np.abs(maps))
        np.add.at(self.counts, which, 1)

    @property
    def mean(self) -> Array:
        """(B, C, H, W) float64; zeros where a bin is empty."""
        return self._sum / self._divisor

    @property
    def strength(self) -> Array:
        """Mean of the absolute values, (B, C, H, W) float64."""
        return self._strength / self._divisor

    @property
    def _divisor(self) -> Array:
        return np.maximum(self.counts, 1).reshape(-1, *[1] * (self._sum.ndim - 1))


class ByTarget:
    """What a pass over S samples gives.

    Attributes
    ----------
    names : list of str
        R regions; none where the images have no known ones.
    means : dict of str to MeanMaps
        By method.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.means: dict[str, MeanMaps] = {}
        self._areas: list[list[float]] = []
        self._shares: dict[str, list[list[float]]] = {}

    @property
    def areas(self) -> Array:
        """Share of each region in the area of each image, (S, R)."""
        return np.array(self._areas)

    def shares(self, method: str) -> Array:
        """Share of each region in each map of a method, (S, R)."""
        return np.array(self._shares[method])

    def count(self, method: str, maps: Array, which: Array, bins: int, regions: Sequence[Mapping[str, Array]]) -> None:
        """Take maps of one method in.

        Parameters
        ----------
        method : str
        maps : (M, C, H, W)
        which : (M,) int
            Their bins,
        bins : int
            of so many.
        regions : sequence of mapping
            (H, W) bool by name, of each map.
        """
        # A map may have fewer channels than its image.
        self.means.setdefault(method, MeanMaps(bins, maps.shape[1:])).add(maps, which)
        self._shares.setdefault(method, []).extend(
            self._row(localisation.shares(own, one)) for own, one in zip(maps, regions, strict=True)
        )

    def know(self, regions: Sequence[Mapping[str, Array]]) -> None:
        """Take the regions of further images."""
        self.names = self.names or list(regions[0])
        self._areas.extend(self._row(localisation.areas(one)) for one in regions)

    def _row(self, values: Mapping[str, float]) -> list[float]:
        return [values.get(name, 0.0) for name in self.names]


def mean_maps_by_target(
    images: Array,
    which: Array,
    ways: Mapping[str, Callable[[Array], Array]],
    regions: Callable[[Array, Array], Sequence[Mapping[str, Array]]],
    *,
    done: Callable[[int, str], None] = lambda maps, method: None,
) -> ByTarget:
    """Average the maps of several methods over the images of each bin, batch by batch.

    Parameters
    ----------
    images : (S, C, H, W) float32
    which : (S,) int
        The bin of each image, see `stm_models.explain.attention.bins_of`.
    ways : mapping of str to callable
        By method, images to maps (M, C, H, W), or (M, 1, H, W).
    regions : callable
        Rows (M,) and their images to the regions of each, (H, W) bool by name; the same names of all, or none.
    done : callable
        Told after each batch how many maps of which method there are more.
    """
    found, bins = ByTarget(), int(which.max()) + 1
    for first in range(0, len(images), _BATCH):
        rows = np.arange(first, min(first + _BATCH, len(images)))
        known = regions(rows, images[rows])
        found.know(known)
        for method, maps in ways.items():
            found.count(method, maps(images[rows]), which[rows], bins, known)
            done(len(rows), method)
    return found
