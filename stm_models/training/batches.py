"""Where the batches of a training come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stm_models.networks.model import Model
from stm_models.tasks.perturbation import Step
from stm_models.training.perturbations import perturb
from stm_models.training.reproducible import mixed

__all__ = ["Batches", "MeasuredBatches", "StoredBatches", "to_device"]

Array = NDArray[Any]

_CHUNK = 32  # images of a map's size: what is made of them stays in a processor's cache


class Batches(ABC):
    """Batches of images (B, C, H, W) and targets, float32 on the training's device, in their own units.

    Attributes
    ----------
    count : int
        Batches per epoch.
    """

    count: int

    @abstractmethod
    def epoch(self, number: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of epoch ``number`` (from 1).

        ``generator`` (CPU) is seeded for the training and the epoch; what is drawn depends on nothing else, so
        that an interrupted training ends as one that was not.
        """

    def rows(self, number: int, generator: torch.Generator, batch: int) -> list[int] | None:
        """Return which training samples made batch ``batch`` (from 0) of epoch ``number``; ``None`` where none did."""
        return None


class StoredBatches(Batches):
    """All samples of a data set once per epoch, in random order.

    Parameters
    ----------
    images : (S, C, H, W) float32
    targets : (S, T) or (S, T, H, W)
    size : int
        Largest batch.
    device : torch.device
        Where they are kept, whole.
    copies : callable, optional
        Gives, for a number, another perturbed copy of the images; the next one every epoch, one in memory at
        a time. ``images`` is then copy 0.
    """

    def __init__(
        self,
        images: Array,
        targets: Array,
        size: int,
        device: torch.device,
        copies: Callable[[int], Array] | None = None,
    ) -> None:
        self._x, self._y = to_device(images, device), to_device(targets, device)
        self._copies, self._copy = copies, 0
        self.count = -(-len(images) // size)

    def epoch(self, number: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every sample once."""
        self._renew(number)
        for rows in self._order(generator).to(self._x.device).tensor_split(self.count):
            yield self._x[rows], self._y[rows]

    def rows(self, number: int, generator: torch.Generator, batch: int) -> list[int]:
        """Return the rows of a batch."""
        return self._order(generator).tensor_split(self.count)[batch].tolist()

    def _renew(self, number: int) -> None:
        copy = number - 1
        if self._copies is not None and copy != self._copy:
            self._copy, self._x = copy, to_device(self._copies(copy), self._x.device)

    def _order(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self._x), generator=generator)


class MeasuredBatches(StoredBatches):
    """All samples several times an epoch, perturbed once: what the network measures on them, in place of images.

    Where measuring takes longer than learning from it, more is learnt from every perturbed image (data echoing,
    arXiv:1907.05550).

    Parameters
    ----------
    images, targets, size, device, copies
        As in `StoredBatches`.
    model : Model
        On the device.
    steps : sequence of Step
        Distortions of the images.
    repeats : int
    seed : int
        Of the distortions.
    """

    def __init__(
        self,
        images: Array,
        targets: Array,
        size: int,
        device: torch.device,
        copies: Callable[[int], Array] | None,
        *,
        model: Model,
        steps: Sequence[Step],
        repeats: int,
        seed: int,
    ) -> None:
        super().__init__(images, targets, size, device, copies)
        self._model, self._steps, self._repeats, self._seed = model, steps, repeats, seed
        self._pass = self.count
        self.count *= repeats

    def epoch(self, number: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every sample as often as it is repeated, each time in another order."""
        self._renew(number)
        distorting = torch.Generator(self._x.device).manual_seed(mixed(self._seed, number, 1))
        with torch.no_grad():
            found = torch.cat([self._measured(part, distorting) for part in self._x.split(_CHUNK)])
        for rows in self._batches(generator):
            yield found[rows.to(found.device)], self._y[rows.to(found.device)]

    def rows(self, number: int, generator: torch.Generator, batch: int) -> list[int]:
        """Return the rows of a batch."""
        return next(islice(self._batches(generator), batch, None)).tolist()

    def _batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self._repeats):
            yield from self._order(generator).tensor_split(self._pass)

    def _measured(self, images: Tensor, distorting: torch.Generator) -> Tensor:
        seen = self._model.standardise(perturb(images, self._steps, distorting))
        return self._model.network.measured(seen)


def to_device(values: Array, device: torch.device) -> Tensor:
    """Return an array as a float32 tensor on ``device``."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
