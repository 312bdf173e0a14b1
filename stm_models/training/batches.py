"""Where the batches of a training come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
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
    """All samples as the last epochs perturbed them, each once: what the network measures on them, for images.

    Where measuring takes longer than learning from it, more is learnt from every perturbed image (data echoing,
    arXiv:1907.05550). The first epochs show theirs more often instead.

    Parameters
    ----------
    images, targets, size, device, copies
        As in `StoredBatches`.
    model : Model
        On the device.
    steps : sequence of Step
        Distortions of the images.
    repeats : int
        How many epochs' images are shown.
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
        self._found: dict[int, Tensor] = {}
        self.count *= repeats

    def epoch(self, number: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every sample as often as it is repeated."""
        numbers = [max(number - age, 1) for age in range(self._repeats)]
        # Sorted, as after an interruption all are measured again.
        self._found = {one: self._found[one] if one in self._found else self._measure(one)
                       for one in sorted(set(numbers))}  # fmt: skip
        samples = len(self._y)
        for rows in self._order(generator).tensor_split(self.count):
            ages, places = rows // samples, (rows % samples).to(self._y.device)
            shown = torch.empty(len(rows), *self._found[number].shape[1:], device=self._y.device)
            for age in ages.unique().tolist():
                shown[ages == age] = self._found[numbers[age]][places[ages == age]]
            yield shown, self._y[places]

    def rows(self, number: int, generator: torch.Generator, batch: int) -> list[int]:
        """Return the rows of a batch."""
        return (self._order(generator).tensor_split(self.count)[batch] % len(self._y)).tolist()

    def _order(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self._repeats * len(self._y), generator=generator)

    def _measure(self, number: int) -> Tensor:
        self._renew(number)
        distorting = torch.Generator(self._x.device).manual_seed(mixed(self._seed, number, 1))
        with torch.no_grad():
            return torch.cat([self._measured(part, distorting) for part in self._x.split(_CHUNK)])

    def _measured(self, images: Tensor, distorting: torch.Generator) -> Tensor:
        seen = self._model.standardise(perturb(images, self._steps, distorting))
        return self._model.network.measured(seen)


def to_device(values: Array, device: torch.device) -> Tensor:
    """Return an array as a float32 tensor on ``device``."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
