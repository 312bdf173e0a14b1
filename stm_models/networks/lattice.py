"""A network for FT-LDOS images that looks where physics puts the signal: at the peaks of the moiré lattice."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from stm_models.errors import InputError
from stm_models.networks.base import Network, NetworkOptions
from stm_models.networks.lattice_measure import PeakMeasure
from stm_models.networks.lattice_windows import PeakGrid
from stm_models.search import Choice, Space

__all__ = ["Lattice", "LatticeOptions", "discriminants", "principal"]

_LIMIT = 8.0  # standard deviations; what lies farther out counts as that far
_SOFT = 6.0  # standard deviations of simulated images
_FAINT = 5e-4  # of the strongest component; below lies what single precision rounds
_COPIES = 8  # of the images that tell the noise's covariance
_SHRUNK = 0.01  # of the mean variance that noise adds: what is added in every direction, as few images tell them apart
_GATE = 64
_CHUNK = 32
Pair = tuple[float, float]


class LatticeOptions(NetworkOptions):
    """Options of `Lattice`; ``hidden`` may be written as ``[128, 64]`` or ``"128-64"``.

    Attributes
    ----------
    vectors : ((x, y), (x, y)) or None, 1/a
        Reciprocal lattice vectors; the task gives them.
    pixel : (x, y) or None, 1/a
    peak : float or None, 1/a
        Width of a peak.
    symmetric, shapes : bool
        See `PeakMeasure`.
    gated : bool
        Let the noise of an image decide how much each component counts.
    components : int
        Principal components of the simulated images to start from, and as many directions that the noise spares.
    """

    vectors: tuple[Pair, Pair] | None = None
    pixel: Pair | None = None
    peak: float | None = Field(None, gt=0)
    symmetric: bool = True
    shapes: bool = True
    gated: bool = True
    components: int = Field(48, ge=1, le=4096)
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field((128, 64), min_length=1, max_length=8)

    @field_validator("hidden", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return value.split("-") if isinstance(value, str) else value


def principal(values: Tensor, count: int) -> Tensor:
    """Return the principal directions (up to ``count``, D) of values (S, D) about 0, each of unit variance."""
    _, sizes, directions = torch.linalg.svd(values, full_matrices=False)
    kept = min(count, int((sizes > _FAINT * sizes[0]).sum()))
    return directions[:kept] * (len(values) ** 0.5 / sizes[:kept, None])


def discriminants(values: Tensor, noise: Tensor, count: int) -> Tensor:
    """Return the directions (up to ``count``, D) in which values vary most in units of their noise.

    Parameters
    ----------
    values : (S, D) float64
        About 0.
    noise : (N, D) float64
        What is added to them, in one copy or more; the sums have unit variance along each direction. None without
        noise, and for less of it than dimensions, which does not tell its covariance.
    count : int
    """
    signal, hidden = (part.T @ part / len(part) for part in (values, noise))
    mean = hidden.diagonal().mean()
    if len(noise) < noise.shape[1] or not mean > 0:
        return values.new_zeros((0, values.shape[1]))
    whitening = torch.linalg.inv(torch.linalg.cholesky(hidden + _SHRUNK * mean * torch.eye(len(hidden)).to(hidden)))
    _, directions = torch.linalg.eigh(whitening @ signal @ whitening.T)
    found = directions.flip(1)[:, :count].T @ whitening
    return found / ((found @ (signal + hidden)) * found).sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)


class Lattice(Network):
    """Peaks of the moiré lattice, their components weighed by the image's noise, then linear layers.

    Notes
    -----
    Simulated images differ along few directions, most of them far below the noise of a measured one: a network that
    sees images scaled by the noise learns them slowly or never. Here the components of the simulated images start
    at the same scale, as in a regression on principal components, and a gate between 0 and 1, which depends on the
    noise alone, shrinks each as a Wiener filter does: a clean image keeps them all, a noisy one the strong ones.

    Noise of a map changes the peaks together, by far more in some directions than in others. So there are as many
    components again that start where the states' variance is largest in units of the noise's: Fisher's discriminants
    (Ann. Eugenics 7, 179 (1936)) with the states for classes. With fewer images than measures they start at random.
    """

    Options = LatticeOptions
    standardised: ClassVar[bool] = False
    space: ClassVar[Space] = {"hidden": Choice(("64-32", "128-64", "256-128")), "components": Choice((24, 48, 96))}
    options: LatticeOptions
    mean: Tensor
    scale: Tensor

    def __init__(self, in_shape: tuple[int, int, int], outputs: int, options: LatticeOptions) -> None:
        super().__init__(in_shape, outputs, options)
        if options.vectors is None or options.pixel is None or options.peak is None:
            raise InputError(
                "network 'lattice' is made for a data set's lattice (vectors, pixel, peak): train it on FT-LDOS images "
                "of one structure, or take another network"
            )
        grid = PeakGrid(in_shape[1], in_shape[2], options.pixel, np.array(options.vectors), options.peak)
        self.measure = PeakMeasure(in_shape[0], grid, symmetric=options.symmetric, shapes=options.shapes)
        peaks, noises = self.measure.count, self.measure.noises
        self.register_buffer("mean", torch.zeros(peaks + noises))
        self.register_buffer("scale", torch.ones(peaks + noises))
        count = 2 * options.components
        self.components = nn.Linear(peaks, count)
        self.gate = nn.Sequential(nn.Linear(noises, _GATE), nn.GELU(), nn.Linear(_GATE, count), nn.Sigmoid())
        layers: list[nn.Module] = []
        width = count + noises
        for hidden in options.hidden:
            layers += [nn.Linear(width, hidden), nn.GELU()]
            width = hidden
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width + count, outputs)

    def learn(self, shown: Iterable[Tensor], simulated: Tensor) -> None:
        """Take the scale of what is measured, and the components to start from, of copies and ``simulated`` images."""
        copies = _COPIES if len(simulated) >= self.measure.count else 1
        with torch.no_grad():
            simple, *found = (
                torch.cat([self.measured(part) for part in one.split(_CHUNK)])
                for one in chain([simulated], islice(shown, copies))
            )
            every = torch.cat(found)
            self.mean.copy_(every.double().mean(dim=0))
            self.scale.copy_(every.double().std(dim=0, unbiased=False).clamp_min(1e-6))
            seen, plain = (self._scaled(one)[0].double() for one in (every, simple))
            centre, count = plain.mean(dim=0), self.options.components
            self._start(0, principal(plain - centre, count), centre)
            noise = seen - plain.repeat(len(found), 1)
            self._start(count, discriminants(plain - centre, noise, count), centre)

    def _start(self, first: int, weights: Tensor, centre: Tensor) -> None:
        rows = slice(first, first + len(weights))
        self.components.weight[rows] = weights.float()
        self.components.bias[rows] = -(weights @ centre).float()

    def measured(self, x: Tensor) -> Tensor:
        """Return what is measured of peaks and noise, (B, count + noises)."""
        return torch.cat(self.measure(x), dim=1)

    def from_measured(self, found: Tensor) -> Tensor:
        """Return the (B, T) standardised targets from what `measured` returned."""
        answer: Tensor = self.head(self._weighed(found))
        return answer

    def _scaled(self, found: Tensor) -> tuple[Tensor, Tensor]:
        scaled = ((found - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)
        return scaled[:, : self.measure.count], scaled[:, self.measure.count :]

    def noise(self, x: Tensor) -> Tensor:
        """Return the (B, noises) measures of the noise of images ``x`` (B, C, H, W), in units of their spread."""
        return self._scaled(self.measured(x))[1]

    def features(self, x: Tensor) -> Tensor:
        """Return the (B, last hidden width + components) features of images ``x`` (B, C, H, W), as they are."""
        return self._weighed(self.measured(x))

    def _weighed(self, found: Tensor) -> Tensor:
        peaks, noise = self._scaled(found)
        components = _SOFT * (self.components(peaks) / _SOFT).tanh()
        if self.options.gated:
            components = components * self.gate(noise)
        return torch.cat([self.body(torch.cat([components, noise], dim=1)), components], dim=1)
