"""Perturbed images: batched distortions with explicit random numbers, and named sets that anyone can make again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from stm_models.data.dataset import Samples, stored
from stm_models.errors import InputError
from stm_models.tasks.perturbation import Perturbation, Remake, Step
from stm_models.training.reproducible import mixed

__all__ = ["copies_of", "digest", "distorted", "perturb", "perturbed"]

Ranges = dict[str, Tensor]
Rows = NDArray[np.int64]

_DIGITS = 5
_CHUNK = 32  # images of a map's size: what is made of them stays in a processor's cache


def perturb(images: Tensor, steps: Sequence[Step], generator: torch.Generator) -> Tensor:
    """Distort every image with draws of its own.

    Parameters
    ----------
    images : (B, C, H, W) floating
        For the task hubbard |F|/|F(0)|, in [0, 1]. Left as it is.
    steps : sequence of Step
    generator : torch.Generator
        On the device of the images.

    Returns
    -------
    (B, C, H, W)
        Not clipped: noise around 0 stays symmetric. An image that no step met is bitwise the same.

    Notes
    -----
    Gain, shift, strain and tip are those of one measurement and shared by the channels of a sample; noise and
    line offsets are each channel's own.
    """
    images = images.clone()
    for step in steps:
        met = torch.rand(len(images), generator=generator, device=images.device) < step.probability
        drawn = {name: _uniform(images, limits, generator) for name, limits in step.ranges.items()}
        if step.kind in _TURNED:
            drawn["angle"] = _uniform(images, (0.0, math.pi), generator)
        rows = met.nonzero()[:, 0]
        if len(rows):
            own = {name: values[rows] for name, values in drawn.items()}
            images[rows] = _DISTORTIONS[step.kind](images[rows], own, step, generator)
    return images


def distorted(images: NDArray[Any], steps: Sequence[Step], seed: int) -> NDArray[np.float32]:
    """Return images (S, C, H, W) as `perturb` makes them with a seed, on the CPU, a few at a time."""
    generator = torch.Generator().manual_seed(seed)
    result = np.array(images, np.float32)
    for part in torch.from_numpy(result).split(_CHUNK):
        part.copy_(perturb(part, steps, generator))
    return result


def perturbed(perturbation: Perturbation, samples: Samples, seed: int) -> NDArray[np.float32]:
    """Return the images of ``samples`` as the set ``perturbation`` with ``seed`` has them.

    Every sample's random numbers come from the seed and its row in the data set: neither its companions nor
    their number matter.

    Returns
    -------
    (S, C, H, W) float32

    Raises
    ------
    InputError
        When the data set does not hold an array that the set is made from.
    """
    rows = samples.coordinates["sample"]
    if perturbation.among:
        images = np.empty(samples.images.shape, np.float32)
        taken = np.array([_drawn(perturbation, np.random.default_rng([seed, int(row), 1]), 1)[0] for row in rows])
        for number, (_, one) in enumerate(perturbation.among):
            own = np.flatnonzero(taken == number)
            images[own] = perturbed(one, samples.subset(own), seed)
        return images
    images = _maker(perturbation, samples)(np.arange(len(samples)), seed, 0)
    if perturbation.steps:
        for place, row in enumerate(rows):
            images[place] = distorted(images[place : place + 1], perturbation.steps, mixed(seed, int(row)))[0]
    return images


def copies_of(perturbation: Perturbation, samples: Samples, seed: int) -> Callable[[int], NDArray[np.float32]] | None:
    """Return what makes copy 0, 1, ... of the images of a set that is made from maps or among others; else ``None``.

    Without the set's own steps, which the trainer takes batch by batch.
    """
    if perturbation.remake is not None:
        make, every = _maker(perturbation, samples), np.arange(len(samples))
        return lambda number: make(every, mixed(seed, number, 2), number)
    if not perturbation.among:
        return None
    makers = [_maker(one, samples) for _, one in perturbation.among]

    def copy(number: int) -> NDArray[np.float32]:
        own = mixed(seed, number, 2)
        taken = _drawn(perturbation, np.random.default_rng(own), len(samples))
        images = np.empty(samples.images.shape, np.float32)
        for place, (make, (_, one)) in enumerate(zip(makers, perturbation.among, strict=True)):
            rows = np.flatnonzero(taken == place)
            images[rows] = distorted(make(rows, own, number), one.steps, mixed(own, place))
        return images

    return copy


def _drawn(perturbation: Perturbation, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return which of the sets among which it draws each of so many samples suffers."""
    shares = [share for share, _ in perturbation.among]
    return rng.choice(len(shares), count, p=np.array(shares) / sum(shares))


def digest(images: NDArray[Any]) -> str:
    """Return a SHA-256 (hex) of images (S, C, H, W), rounded to 5 decimals as those of a data set are."""
    summary = hashlib.sha256(repr(images.shape).encode())
    for image in images:
        summary.update(np.rint(image.astype(np.float64) * 10**_DIGITS).astype("<i8").tobytes())
    return summary.hexdigest()


def _maker(perturbation: Perturbation, samples: Samples) -> Callable[[Rows, int, int], NDArray[np.float32]]:
    """Return what makes the images of rows, with a seed, for a copy of the data set, as they are before the steps.

    A set that remakes them is told the first row of every array that it needs, whichever ``samples`` are.
    """
    if perturbation.remake is None:
        return lambda rows, seed, copy: np.array(samples.images[rows], np.float32)
    first, example = replace(samples, coordinates={"sample": np.zeros(1, np.int64)}), {}
    for name in perturbation.needs:
        try:
            example[name] = stored(first, name)[0]
        except InputError as error:
            raise InputError(f"{error}, or choose another perturbation than {perturbation.name!r}") from error
    remake = perturbation.remake({**samples.attributes, "example": example})
    arrays = {name: stored(samples, name) for name in perturbation.needs}  # less than the images are
    return lambda rows, seed, copy: _remade(remake, arrays, samples, rows, seed, copy)


def _remade(
    remake: Remake, arrays: Mapping[str, NDArray[Any]], samples: Samples, rows: Rows, seed: int, copy: int
) -> NDArray[np.float32]:
    images = np.empty((len(rows), *samples.images.shape[1:]), np.float32)
    with threadpool_limits(1, "blas"):  # products of small matrices: more threads only wait for one another
        for place, row in enumerate(rows):
            coordinates = {name: values[row] for name, values in samples.coordinates.items()} | {"copy": copy}
            own = {name: values[row] for name, values in arrays.items()} | {"image": samples.images[row]}
            images[place] = remake(coordinates, own, np.random.default_rng([seed, int(coordinates["sample"])]))
    return images


def _uniform(like: Tensor, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand(len(like), generator=generator, device=like.device, dtype=like.dtype)


def _normal(like: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _gain_shift(x: Tensor, drawn: Ranges, step: Step, generator: torch.Generator) -> Tensor:
    return x * _per_image(drawn["gain"]) + _per_image(drawn["shift"])


def _gaussian(x: Tensor, drawn: Ranges, step: Step, generator: torch.Generator) -> Tensor:
    return x + _per_image(drawn["sigma"]) * _normal(x, tuple(x.shape), generator)


def _scan_line(x: Tensor, drawn: Ranges, step: Step, generator: torch.Generator) -> Tensor:
    return x + _per_image(drawn["sigma"]) * _normal(x, (*x.shape[:3], 1), generator)


def _strain(x: Tensor, drawn: Ranges, step: Step, generator: torch.Generator) -> Tensor:
    """Stretch by 1 + strain along a random direction and by 1 - strain across it, in pixels."""
    c, s = torch.cos(drawn["angle"]), torch.sin(drawn["angle"])
    along, across = 1 / (1 + drawn["strain"]), 1 / (1 - drawn["strain"])
    height, width = x.shape[2:]
    zero = torch.zeros_like(c)
    # Where a pixel of the result is looked up; grid coordinates run from -1 to 1 along either side.
    first = torch.stack([along * c * c + across * s * s, (along - across) * c * s * height / width, zero], -1)
    second = torch.stack([(along - across) * c * s * width / height, along * s * s + across * c * c, zero], -1)
    grid = functional.affine_grid(torch.stack([first, second], 1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _tip_blur(x: Tensor, drawn: Ranges, step: Step, generator: torch.Generator) -> Tensor:
    """Convolve with an elliptical Gaussian at a random angle; beyond the edge the last pixel is repeated."""
    angle = drawn["angle"][:, None, None]
    reach = math.ceil(3.5 * step.ranges["sigma"][1] * step.ranges["ratio"][1])
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    v, u = offsets[None, :, None], offsets[None, None, :]
    narrow = drawn["sigma"][:, None, None]
    wide = narrow * drawn["ratio"][:, None, None]
    along, across = u * torch.cos(angle) + v * torch.sin(angle), v * torch.cos(angle) - u * torch.sin(angle)
    kernel = torch.exp(-((along / wide) ** 2 + (across / narrow) ** 2) / 2)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    count, channels = x.shape[:2]
    padded = functional.pad(x, (reach,) * 4, mode="replicate").reshape(1, count * channels, *_padded(x, reach))
    kernels = kernel.repeat_interleave(channels, 0)[:, None]
    return functional.conv2d(padded, kernels, groups=count * channels).reshape(x.shape)


def _padded(x: Tensor, reach: int) -> tuple[int, int]:
    return x.shape[2] + 2 * reach, x.shape[3] + 2 * reach


_DISTORTIONS: dict[str, Callable[[Tensor, Ranges, Step, torch.Generator], Tensor]] = {
    "gain_shift": _gain_shift,
    "gaussian": _gaussian,
    "scan_line": _scan_line,
    "strain": _strain,
    "tip_blur": _tip_blur,
}
_TURNED = ("strain", "tip_blur")
"""Distortions along a direction, which is drawn too."""
